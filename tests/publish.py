"""A camera that publishes to a listening RTSP reader, run in a process of its own."""

from __future__ import annotations

import time

import av
from av.error import FFmpegError
from media import encode

RATE = 10


def main(url: str, first: int, count: int = 30) -> None:
    """Publish numbered pictures, as soon as somebody listens, and keep the connection until killed."""
    for _ in range(600):
        try:
            _publish(url, first, count)
        except FFmpegError:  # nobody listens yet
            time.sleep(0.05)


def _publish(url: str, first: int, count: int) -> None:
    with av.open(url, "w", format="rtsp", options={"rtsp_transport": "tcp"}) as output:
        times = [index / RATE for index in range(count)]
        for packet in encode(output, times, first=first, tune="zerolatency", g="5"):
            output.mux(packet)
        time.sleep(60)
