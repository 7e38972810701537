"""Opening a container with FFmpeg: what it may read, how long it may take, and what went wrong in plain words."""

from __future__ import annotations

import math
import sys
from pathlib import Path

import av
from av.container import InputContainer
from av.error import (
    ArgumentError,
    ConnectionRefusedError,
    ConnectionResetError,
    ExitError,
    FFmpegError,
    InvalidDataError,
    PermissionError,
    ProtocolNotFoundError,
    TimeoutError,
)

from streamvlm.errors import SourceError
from streamvlm.source.address import Address, Medium
from streamvlm.source.options import SourceOptions

# Playlists and other formats that name further files (hls, concat, sdp, image2 ...) are on no list but HTTP's:
# an uploaded playlist must not make us read other files of this machine.
_MEDIA = (
    "mov,matroska,webm,avi,flv,live_flv,mpegts,mpeg,mpegvideo,asf,ogg,h264,hevc,vvc,m4v,mjpeg,ivf,obu,gif,nut,mxf,"
    "dv,rm,wtv,yuv4mpegpipe,mp3,aac,wav,flac,aiff,caf,ac3,eac3,amr"
)
_FORMATS = {"rtsp": "rtsp", "rtsps": "rtsp", "http": f"{_MEDIA},hls,mpjpeg,webvtt"}
_FORMATS["https"] = _FORMATS["http"]
_PROTOCOLS = {
    "rtsp": "rtsp,rtp,tcp,udp",
    "rtsps": "rtsp,rtsps,rtp,srtp,tcp,udp,tls",
    "udp": "udp",
    "tcp": "tcp",
    "rtmp": "rtmp,tcp",
    "rtmps": "rtmps,rtmp,tcp,tls",
    "http": "http,https,tcp,tls,httpproxy,crypto",
    "https": "http,https,tcp,tls,httpproxy,crypto",
}
_CAMERA_FORMATS = {"darwin": "avfoundation", "win32": "dshow"}


def open_container(address: Address, options: SourceOptions) -> InputContainer:
    """Open what FFmpeg reads; raises SourceError with the cause."""
    camera = _CAMERA_FORMATS.get(sys.platform, "v4l2") if address.medium is Medium.WEBCAM else None
    # The prefix keeps a file called "concat:a.mp4" from being taken for a protocol.
    url = f"file:{address.url}" if address.medium is Medium.FILE else address.url
    timeouts = (options.open_timeout, options.read_timeout)
    try:
        container: InputContainer = av.open(
            url, format=camera, options=_ffmpeg_options(address, options), timeout=timeouts
        )
    except (FFmpegError, UnicodeError, ValueError) as error:
        # Not "from error": FFmpeg's message carries the whole address, password and all, into every traceback.
        raise SourceError(address.shown, _explain_open(error, address, options)) from None
    return container


def _ffmpeg_options(address: Address, options: SourceOptions) -> dict[str, str]:
    if address.medium is Medium.WEBCAM:
        return {}
    chosen = {
        "protocol_whitelist": _PROTOCOLS.get(address.scheme, "file"),
        "format_whitelist": _FORMATS.get(address.scheme, _MEDIA),
    }
    if address.medium is Medium.NETWORK:
        chosen["analyzeduration"] = "2000000"  # microseconds; FFmpeg's 5 s would pass before the first frame
    if address.scheme in ("rtsp", "rtsps"):
        chosen["rtsp_transport"] = "tcp"
        if options.listen:
            chosen |= {"rtsp_flags": "listen", "listen_timeout": str(math.ceil(options.open_timeout))}
    if address.scheme == "udp":
        chosen["overrun_nonfatal"] = "1"  # a slow reader loses packets, not the stream
    if address.scheme in ("http", "https"):
        # Only takes effect where the server can resume at an offset, so never on a live stream.
        chosen |= {"reconnect": "1", "reconnect_delay_max": "2"}
        if not options.follow:
            chosen |= {"max_redirects": "0", "format_whitelist": f"{_MEDIA},mpjpeg"}
    return chosen


def _explain_open(error: Exception, address: Address, options: SourceOptions) -> str:
    """Why opening failed, in words for a person who does not know FFmpeg."""
    if address.medium is Medium.FILE and isinstance(error, InvalidDataError | ArgumentError):
        return _explain_file(Path(address.url))
    if isinstance(error, ArgumentError):
        return "the address or its format is not allowed"
    return explain(error, options.open_timeout)


def explain(error: Exception, timeout: float) -> str:
    """Why reading failed, without FFmpeg's own message and the password in it."""
    if isinstance(error, ExitError | TimeoutError):
        return f"no data for {timeout:g} s"
    if isinstance(error, InvalidDataError):
        return "the data is damaged, or not video"
    if isinstance(error, ConnectionRefusedError):
        return "the connection was refused: nothing is listening there"
    if isinstance(error, ConnectionResetError):
        return "the other side closed the connection"
    if isinstance(error, PermissionError):
        return "permission denied"
    if isinstance(error, ProtocolNotFoundError):
        return "the protocol is not allowed here"
    return getattr(error, "strerror", None) or type(error).__name__


def _explain_file(path: Path) -> str:
    with path.open("rb") as file:
        head = file.read(64)
    if not head:
        return "the file is empty"
    if head.lstrip(b"\xef\xbb\xbf \r\n\t").startswith((b"#EXTM3U", b"ffconcat", b"<?xml", b"v=0")):
        return "it is a playlist or a description, not a video; playlists are read over HTTP only"
    if head[4:8] == b"ftyp":
        return "the MP4 index (moov) is missing or damaged: the file is cut off or its recording was never finished"
    if head.isascii() and not any(byte < 9 for byte in head):
        return "it is a text file, not a video"
    return "it is not a video, or it is damaged beyond reading"
