"""Choosing how to read what a person names."""

from __future__ import annotations

from pathlib import Path

from streamvlm.source.address import Address, Medium, parse_address
from streamvlm.source.base import Source
from streamvlm.source.container import open_container
from streamvlm.source.decord_files import DecordSource
from streamvlm.source.finite import FiniteSource
from streamvlm.source.images import ImageSource
from streamvlm.source.live import LiveSource
from streamvlm.source.options import SourceOptions
from streamvlm.source.pacing import PacedSource
from streamvlm.source.parallel import open_parallel


def open_source(
    uri: str | Path, *, fps: float | None = 2.0, realtime: bool = False, options: SourceOptions | None = None
) -> Source:
    """Open a video and return its frames, sampled by presentation time at `fps` a second (None: every picture).

    `uri` is a video file, a picture, a folder of pictures, an address (rtsp, rtsps, rtmp, rtmps, udp, tcp, http,
    https; HLS by its http address) or a camera (`0`, `webcam:`, `webcam:1`, `/dev/video0`). `realtime` plays a
    recording at its own speed; a live source has no other. Raises SourceError naming the source and the cause.
    """
    if fps is not None and not 0 < fps <= 1000:
        raise ValueError(f"fps must be None or in (0, 1000], got {fps}")
    options = options or SourceOptions()
    address = parse_address(uri)
    if options.listen and address.scheme not in ("rtsp", "rtsps"):
        raise ValueError(f"listen is for rtsp sources only, got {address.shown}")
    source = _open(address, fps, options)
    return PacedSource(source, options.clock) if realtime and not source.live else source


def _open(address: Address, fps: float | None, options: SourceOptions) -> Source:
    if options.backend == "decord":
        return DecordSource(address, fps, options)
    if address.medium is Medium.IMAGES:
        return ImageSource(address, fps, options)
    if options.workers > 1 and address.medium is Medium.FILE:
        parallel = open_parallel(address, fps, options)
        if parallel is not None:
            return parallel
    container = open_container(address, options)
    # A web server hands out recordings as well as broadcasts; only a recording knows its length.
    live = address.medium is Medium.WEBCAM or (
        address.medium is Medium.NETWORK and not (address.scheme in ("http", "https") and container.duration)
    )
    return LiveSource(address, container, fps, options) if live else FiniteSource(address, container, fps, options)
