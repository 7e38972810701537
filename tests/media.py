"""Videos made for the tests: each picture carries its number as bars, so a test knows which one it got."""

from __future__ import annotations

import io
from collections.abc import Iterable, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from torch import Tensor

BITS = 8
WIDTH, HEIGHT = 128, 64
TICKS = 90000  # a second


def coded_picture(number: int, width: int = WIDTH, height: int = HEIGHT) -> np.ndarray[Any, Any]:
    """uint8 [height, width, 3]: the number's bits as white bars in the upper half; the lower half is dark red."""
    picture = np.zeros((height, width, 3), np.uint8)
    picture[height // 2 :, :, 0] = 90
    bar = width // BITS
    for bit in range(BITS):
        if number >> bit & 1:
            picture[: height // 2, bit * bar : (bit + 1) * bar] = 255
    return picture


def number_of(data: Tensor) -> int:
    """The number a picture [3, H, W] carries."""
    _, height, width = data.shape
    bar = width // BITS
    levels = [data[:, height // 4, bit * bar + bar // 2].float().mean() for bit in range(BITS)]
    return sum(1 << bit for bit, level in enumerate(levels) if level > 128)


def constant_rate(seconds: float, rate: int = 30) -> list[float]:
    """The times of a video of constant rate."""
    return [index / rate for index in range(round(seconds * rate))]


def encode(
    output: av.container.OutputContainer,
    times: Sequence[float],
    first: int = 0,
    turn: int = 0,
    size: tuple[int, int] = (HEIGHT, WIDTH),
    **options: str,
) -> Iterable[av.Packet[Any]]:
    """Packets of a video with a picture at each time, numbered from `first`; `turn` quarter turns."""
    chosen = {"preset": "veryfast", "g": "15", "bf": "2", "crf": "20"} | options
    stream = output.add_stream("libx264", rate=30, options=chosen)
    stream.codec_context.time_base = Fraction(1, TICKS)
    stream.pix_fmt = "yuv420p"
    height, width = size if turn % 2 == 0 else size[::-1]
    stream.width, stream.height = width, height
    for index, time in enumerate(times):
        picture = np.rot90(coded_picture(first + index, size[1], size[0]), turn)
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture))
        frame.pts, frame.time_base = round(time * TICKS), Fraction(1, TICKS)
        yield from stream.encode(frame)
    yield from stream.encode()


def write_video(path: Path, times: Sequence[float], container: dict[str, str] | None = None, **kind: Any) -> Path:
    """A video file; the container follows from the suffix."""
    with av.open(str(path), "w", options=container or {}) as output:
        for packet in encode(output, times, **kind):
            output.mux(packet)
    return path


def transport_stream(times: Sequence[float], **kind: Any) -> bytes:
    """The same as MPEG-TS bytes."""
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mpegts") as output:
        for packet in encode(output, times, **kind):
            output.mux(packet)
    return buffer.getvalue()


def write_audio(path: Path, cover: bool = False) -> Path:
    """A second of silence, optionally with a cover picture."""
    with av.open(str(path), "w") as output:
        sound = output.add_stream("aac", rate=48000)
        picture = output.add_stream("mjpeg", rate=1) if cover else None
        if picture is not None:
            picture.width, picture.height, picture.pix_fmt = WIDTH, HEIGHT, "yuvj420p"
            picture.disposition = av.stream.Disposition.attached_pic
            for packet in picture.encode(av.VideoFrame.from_ndarray(coded_picture(1))):
                output.mux(packet)
        silence = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), "fltp", "mono")
        silence.sample_rate = 48000
        for index in range(48):
            silence.pts = index * 1024
            for packet in sound.encode(silence):
                output.mux(packet)
        for packet in sound.encode():
            output.mux(packet)
    return path


def turn_clockwise(path: Path) -> None:
    """Mark an MP4 as turned, by writing a quarter turn into its track header."""
    data = bytearray(path.read_bytes())
    at = data.index(b"tkhd") + 44
    matrix = [0, 1 << 16, 0, -(1 << 16), 0, 0, 0, 0, 1 << 30]
    data[at : at + 36] = b"".join(value.to_bytes(4, "big", signed=True) for value in matrix)
    path.write_bytes(data)


def skip_start(path: Path, pictures: int, rate: int = 30) -> None:
    """Let an MP4's edit list skip its first pictures."""
    data = bytearray(path.read_bytes())
    header = data.index(b"mdhd") + 16
    timescale = int.from_bytes(data[header : header + 4], "big")
    entry = data.index(b"elst") + 12
    for at, change in ((entry, -pictures * 1000 // rate), (entry + 4, pictures * timescale // rate)):
        value = int.from_bytes(data[at : at + 4], "big", signed=True) + change
        data[at : at + 4] = value.to_bytes(4, "big", signed=True)
    path.write_bytes(data)
