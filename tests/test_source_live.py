"""Cameras and network streams, including those that stall, die and come back."""

from __future__ import annotations

import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from threading import Event, Thread

import pytest
from media import constant_rate, number_of, transport_stream, write_video
from servers import RATE, RtspCamera, broadcast, free_port, send_file, web_server

from streamvlm.errors import SourceError
from streamvlm.source import Backoff, Source, SourceOptions, open_source
from streamvlm.types import Frame

# The first attempt is later than the next picture would have been, so that every loss leaves a gap.
QUICK = SourceOptions(open_timeout=20, read_timeout=20, backoff=Backoff(initial=0.2, longest=0.2, attempts=200))
IMPATIENT = SourceOptions(open_timeout=20, read_timeout=1, backoff=Backoff(initial=0.2, longest=0.2, attempts=200))


def take_until(source: Source, number: int) -> list[Frame]:
    """Frames up to the first that carries `number` or more."""
    frames: list[Frame] = []
    for frame in source:
        frames.append(frame)
        if number_of(frame.data) >= number:
            return frames
    raise AssertionError(f"the stream ended before picture {number}")


def check_one_loss(source: Source, frames: list[Frame], restart: int) -> None:
    """The stream was lost once and resumed at picture `restart`; time went on and the gap is reported once."""
    pts = [frame.pts for frame in frames]
    assert pts == sorted(set(pts))
    assert pts[0] == 0.0
    seen = [number_of(frame.data) for frame in frames]
    assert seen == sorted(set(seen))
    resumed = next(index for index, number in enumerate(seen) if number >= restart)
    gaps = [index for index, frame in enumerate(frames) if frame.gap > 0]
    assert gaps == [resumed]
    assert frames[resumed].gap < pts[resumed] - pts[resumed - 1]
    assert source.stats.reconnects == 1
    assert source.stats.gap_seconds == frames[resumed].gap
    captured = [frame.captured for frame in frames]
    assert all(moment is not None for moment in captured)


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
    options = SourceOptions(open_timeout=20, read_timeout=20, backoff=QUICK.backoff, listen=True)
    with publisher(url, 0):
        source = open_source(url, fps=None, options=options)
        frames = take_until(source, 20)
    with source:
        with publisher(url, 100):
            frames += take_until(source, 120)
        check_one_loss(source, frames, restart=100)


# --- HTTP ---------------------------------------------------------------------------------------------------


def parts(*firsts: int) -> list[bytes]:
    return [transport_stream(constant_rate(8.0, RATE), first=first, tune="zerolatency") for first in firsts]


def test_http_broadcast_that_stalls_is_found_again() -> None:
    left, hold = parts(0, 100), Event()
    with web_server(lambda request: broadcast(request, left.pop(0), hold)) as address:
        with open_source(f"{address}/live", fps=None, options=IMPATIENT) as source:
            assert source.live
            check_one_loss(source, take_until(source, 170), restart=100)
        hold.set()


def test_http_broadcast_that_hangs_up_is_found_again() -> None:
    left, hold = parts(0, 100), Event()

    def answer(request: BaseHTTPRequestHandler) -> None:
        broadcast(request, left.pop(0), hold if not left else None)

    with web_server(answer) as address, open_source(f"{address}/live", fps=None, options=QUICK) as source:
        check_one_loss(source, take_until(source, 170), restart=100)
        hold.set()


def test_a_broadcast_of_noise_is_given_up() -> None:
    left = parts(0)

    def answer(request: BaseHTTPRequestHandler) -> None:
        broadcast(request, left.pop(0) if left else bytes(200_000))

    options = SourceOptions(open_timeout=20, read_timeout=20, backoff=Backoff(initial=0.01, attempts=2))
    with web_server(answer) as address, open_source(f"{address}/live", options=options) as source:
        with pytest.raises(SourceError, match="2 attempts"):
            list(source)
        assert source.stats.frames > 0


def test_close_unblocks_a_reader_of_a_stalled_stream() -> None:
    [data], hold, started = parts(0), Event(), Event()
    frames: list[Frame] = []

    def read(source: Source) -> None:
        for frame in source:
            frames.append(frame)
            if number_of(frame.data) >= 70:
                started.set()

    options = SourceOptions(open_timeout=20, read_timeout=2)
    with web_server(lambda request: broadcast(request, data, hold)) as address:
        source = open_source(f"{address}/live", fps=None, options=options)
        reader = Thread(target=read, args=(source,))
        reader.start()
        assert started.wait(60)
        source.close()
        reader.join(60)
        assert not reader.is_alive()
        assert source.stats.reconnects == 0
        hold.set()


def test_http_file_has_an_end(tmp_path: Path) -> None:
    path = write_video(tmp_path / "v.mp4", constant_rate(3.0), {"movflags": "faststart"})

    def answer(request: BaseHTTPRequestHandler) -> None:
        send_file(request, path.read_bytes())

    with web_server(answer) as address, open_source(f"{address}/v.mp4", options=QUICK) as source:
        assert not source.live
        assert source.duration == pytest.approx(3.0)
        frames = list(source)
    assert [number_of(frame.data) for frame in frames] == [0, 15, 30, 45, 60, 75]
    assert all(frame.captured is None for frame in frames)


def test_http_errors_are_named() -> None:
    with web_server(lambda request: request.send_error(404)) as address, pytest.raises(SourceError, match="404"):
        open_source(f"{address}/none.mp4", options=QUICK)
    with pytest.raises(SourceError, match="refused"):
        open_source(f"http://127.0.0.1:{free_port()}/", options=QUICK)


def test_a_web_server_that_never_answers_is_an_error() -> None:
    hold = Event()

    def answer(_: BaseHTTPRequestHandler) -> None:
        hold.wait(60)

    with web_server(answer) as address:
        with pytest.raises(SourceError, match="no data for 1 s"):
            open_source(f"{address}/live", options=SourceOptions(open_timeout=1))
        hold.set()


# --- HLS ----------------------------------------------------------------------------------------------------


def write_segments(folder: Path) -> None:
    options = {"hls_time": "1", "hls_list_size": "0"}
    write_video(folder / "list.m3u8", constant_rate(5.0), options, keyint_min="15")


def test_hls_recording_is_read_to_its_end(tmp_path: Path) -> None:
    write_segments(tmp_path)

    def answer(request: BaseHTTPRequestHandler) -> None:
        send_file(request, (tmp_path / request.path[1:]).read_bytes())

    with web_server(answer) as address, open_source(f"{address}/list.m3u8", fps=2, options=QUICK) as source:
        assert not source.live
        assert source.duration == pytest.approx(5.0, abs=0.1)
        frames = list(source)
    assert [number_of(frame.data) for frame in frames] == list(range(0, 150, 15))


def test_hls_broadcast_ends_when_its_playlist_does(tmp_path: Path) -> None:
    write_segments(tmp_path)
    playlist = (tmp_path / "list.m3u8").read_bytes()
    over = Event()

    def answer(request: BaseHTTPRequestHandler) -> None:
        if request.path == "/list.m3u8":
            send_file(request, playlist if over.is_set() else playlist.replace(b"#EXT-X-ENDLIST\n", b""))
        else:
            send_file(request, (tmp_path / request.path[1:]).read_bytes())

    with web_server(answer) as address, open_source(f"{address}/list.m3u8", fps=2, options=QUICK) as source:
        assert source.live
        frames = [next(source)]
        over.set()
        frames += source
    # A broadcast is joined three segments before its end, and is not played again when it has become a recording.
    assert [number_of(frame.data) for frame in frames] == list(range(60, 150, 15))


def test_a_remote_playlist_cannot_read_local_files(tmp_path: Path) -> None:
    secret = write_video(tmp_path / "secret.ts", constant_rate(2.0))
    playlist = f"#EXTM3U\n#EXT-X-TARGETDURATION:3\n#EXTINF:2,\nfile://{secret}\n#EXT-X-ENDLIST\n"

    def answer(request: BaseHTTPRequestHandler) -> None:
        send_file(request, playlist.encode())

    with (
        web_server(answer) as address,
        pytest.raises(SourceError),
        open_source(f"{address}/list.m3u8", options=QUICK) as source,
    ):
        list(source)


# --- UDP ----------------------------------------------------------------------------------------------------


def test_udp_stream_is_read_and_its_silence_noticed() -> None:
    port, stop = free_port(socket.SOCK_DGRAM), Event()
    [data] = parts(0)

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
