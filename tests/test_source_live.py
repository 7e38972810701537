"""Cameras and network streams, including those that die and come back."""

from __future__ import annotations

import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Event, Thread

import pytest
from media import number_of
from servers import RtspCamera, broadcasts, free_port
from streams import QUICK, check_one_loss, take_until

from streamvlm.errors import SourceError
from streamvlm.source import Backoff, SourceOptions, open_source

# --- RTSP ---------------------------------------------------------------------------------------------------


def test_rtsp_camera_dies_and_comes_back(caplog: pytest.LogCaptureFixture) -> None:
    port = free_port()
    with RtspCamera(port, first=0) as camera:
        source = open_source(camera.url, fps=None, options=QUICK)
        assert (source.live, source.duration) == (True, None)
        frames = take_until(source, 25)
    with source:
        with RtspCamera(port, first=100):
            frames += take_until(source, 125)
        check_one_loss(source, frames, restart=100)
    assert "connection lost" in caplog.text


def test_rtsp_is_sampled_by_time() -> None:
    with RtspCamera(free_port(), first=0) as camera, open_source(camera.url, fps=2, options=QUICK) as source:
        frames = take_until(source, 20)
    assert [number_of(frame.data) for frame in frames] == [0, 5, 10, 15, 20]
    assert [frame.pts for frame in frames] == pytest.approx([0.0, 0.5, 1.0, 1.5, 2.0], abs=0.05)


def test_rtsp_camera_that_stays_away_is_given_up() -> None:
    options = SourceOptions(open_timeout=20, read_timeout=20, backoff=Backoff(initial=0.01, attempts=3))
    with RtspCamera(free_port(), first=0) as camera:
        source = open_source(camera.url, options=options)
        next(source)
    with source, pytest.raises(SourceError, match=r"refused.*3 attempts"):
        list(source)


@contextmanager
def publisher(url: str, first: int) -> Iterator[None]:
    """A camera in a process of its own that connects to us; FFmpeg's RTSP writer holds the GIL while it waits."""
    script = f"import publish; publish.main({url!r}, {first})"
    process = subprocess.Popen([sys.executable, "-c", script], cwd=Path(__file__).parent)
    try:
        yield
    finally:
        process.kill()
        process.wait(30)


def test_a_publishing_camera_dies_and_comes_back() -> None:
    url = f"rtsp://127.0.0.1:{free_port()}/live"
    options = SourceOptions(open_timeout=60, read_timeout=60, backoff=QUICK.backoff, listen=True)
    with publisher(url, 0):
        source = open_source(url, fps=None, options=options)
        frames = take_until(source, 20)
    with source:
        with publisher(url, 100):
            frames += take_until(source, 120)
        check_one_loss(source, frames, restart=100)


# --- UDP ----------------------------------------------------------------------------------------------------


def test_udp_stream_is_read_and_its_silence_noticed() -> None:
    port, stop = free_port(socket.SOCK_DGRAM), Event()
    [data] = broadcasts(0)

    def send() -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            while not stop.is_set():
                for at in range(0, len(data), 1316):
                    sender.sendto(data[at : at + 1316], ("127.0.0.1", port))
                    stop.wait(0.001)

    thread = Thread(target=send)
    thread.start()
    options = SourceOptions(open_timeout=20, read_timeout=1, backoff=Backoff(attempts=0))
    try:
        with open_source(f"udp://127.0.0.1:{port}", options=options) as source:
            frames = [next(source) for _ in range(5)]
            assert source.live
            assert [frame.pts for frame in frames] == sorted({frame.pts for frame in frames})
            stop.set()
            with pytest.raises(SourceError, match="no data for 1 s"):
                list(source)
    finally:
        stop.set()
        thread.join(30)
