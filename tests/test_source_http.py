"""Web servers: files, broadcasts that stall or hang up, and HLS."""

from __future__ import annotations

from http.server import BaseHTTPRequestHandler
from pathlib import Path
from threading import Event, Thread

import pytest
from media import constant_rate, number_of, write_video
from servers import broadcast, broadcasts, free_port, send_file, send_range, web_server
from streams import IMPATIENT, QUICK, check_one_loss, take_until

from streamvlm.errors import SourceError
from streamvlm.source import Backoff, Source, SourceOptions, open_source
from streamvlm.types import Frame


def test_http_broadcast_that_stalls_is_found_again() -> None:
    left, hold = broadcasts(0, 100), Event()
    with web_server(lambda request: broadcast(request, left.pop(0), hold)) as address:
        with open_source(f"{address}/live", fps=None, options=IMPATIENT) as source:
            assert source.live
            check_one_loss(source, take_until(source, 170), restart=100)
        hold.set()


def test_http_broadcast_that_hangs_up_is_found_again() -> None:
    left, hold = broadcasts(0, 100), Event()

    def answer(request: BaseHTTPRequestHandler) -> None:
        broadcast(request, left.pop(0), hold if not left else None)

    with web_server(answer) as address, open_source(f"{address}/live", fps=None, options=QUICK) as source:
        check_one_loss(source, take_until(source, 170), restart=100)
        hold.set()


def test_a_broadcast_of_noise_is_given_up() -> None:
    left = broadcasts(0)

    def answer(request: BaseHTTPRequestHandler) -> None:
        broadcast(request, left.pop(0) if left else bytes(200_000))

    options = SourceOptions(open_timeout=20, read_timeout=20, backoff=Backoff(initial=0.01, attempts=2))
    with web_server(answer) as address, open_source(f"{address}/live", options=options) as source:
        with pytest.raises(SourceError, match="2 attempts"):
            list(source)
        assert source.stats.frames > 0


def test_close_unblocks_a_reader_of_a_stalled_stream() -> None:
    [data], hold, started = broadcasts(0), Event(), Event()
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


def test_http_file_goes_on_after_a_lost_connection(tmp_path: Path) -> None:
    path = write_video(tmp_path / "v.mp4", constant_rate(3.0), {"movflags": "faststart"})
    data, asked = path.read_bytes(), list[int]()

    def answer(request: BaseHTTPRequestHandler) -> None:
        asked.append(1)
        send_range(request, data, len(data) * 2 // 3 if len(asked) == 1 else None)

    with web_server(answer) as address, open_source(f"{address}/v.mp4", fps=None, options=QUICK) as source:
        assert [number_of(frame.data) for frame in source] == list(range(90))
    assert len(asked) > 1


def test_http_file_that_cannot_be_had_to_its_end_is_an_error_not_an_end(tmp_path: Path) -> None:
    path = write_video(tmp_path / "v.mp4", constant_rate(6.0), {"movflags": "faststart"})
    data = path.read_bytes()

    def answer(request: BaseHTTPRequestHandler) -> None:
        request.send_response(200)
        request.send_header("Content-Length", str(len(data)))
        request.end_headers()
        request.wfile.write(data[: (data.index(b"mdat") + len(data)) // 2])

    options = SourceOptions(open_timeout=20, read_timeout=3)
    with web_server(answer) as address, open_source(f"{address}/v.mp4", fps=None, options=options) as source:
        frames: list[Frame] = []
        with pytest.raises(SourceError):
            frames.extend(source)
        assert source.stats.frames > 30


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
