"""Files that are damaged, are not videos, or would make us read something else."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import av
import pytest
from media import constant_rate, number_of, write_audio, write_video

from streamvlm.errors import SourceError
from streamvlm.source import SourceOptions, open_source
from streamvlm.types import Frame


def read(path: Path, fps: float | None = 2.0) -> list[Frame]:
    with open_source(path, fps=fps) as source:
        return list(source)


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_a_file_cut_off_gives_what_is_there_and_says_so(
    tmp_path: Path, suffix: str, caplog: pytest.LogCaptureFixture
) -> None:
    movflags = {"movflags": "faststart"} if suffix == ".mp4" else {}
    path = write_video(tmp_path / f"v{suffix}", constant_rate(6.0), movflags)
    data = path.read_bytes()
    begin = data.index(b"mdat") if suffix == ".mp4" else 0
    path.write_bytes(data[: (begin + len(data)) // 2])
    with open_source(path, fps=10) as source:
        frames = list(source)
        assert [number_of(frame.data) for frame in frames] == list(range(0, 3 * len(frames), 3))
        assert 20 <= len(frames) <= 40
        assert source.stats.truncated
    assert "cut off" in caplog.text


def test_a_whole_file_is_not_called_cut_off(tmp_path: Path) -> None:
    for suffix in (".mp4", ".mkv", ".ts"):
        with open_source(write_video(tmp_path / f"v{suffix}", [0.0, 0.1, 0.5, 2.6, 2.7, 6.0])) as source:
            assert list(source)
            assert not source.stats.truncated
            assert source.stats.packets_broken == 0


def test_broken_packets_cost_their_frames_and_are_counted(tmp_path: Path) -> None:
    path = write_video(tmp_path / "v.mp4", constant_rate(4.0), {"movflags": "faststart"})
    data = bytearray(path.read_bytes())
    with av.open(str(path)) as container:
        spans = [(packet.pos, packet.size) for packet in container.demux(video=0) if packet.size]
    for position, size in spans[40:50]:
        data[position : position + size] = bytes(size)
    path.write_bytes(data)
    with open_source(path, fps=None) as source:
        frames = list(source)
        assert source.stats.packets_broken >= 10
        assert not source.stats.truncated
    pts = [frame.pts for frame in frames]
    assert pts == sorted(set(pts))
    # The pictures before the damage, and those from the next key frame on, are all there.
    assert set(range(30)) | set(range(60, 120)) <= {round(time * 30) for time in pts}


def test_bit_flips_do_not_stop_the_run(tmp_path: Path) -> None:
    path = write_video(tmp_path / "v.ts", constant_rate(6.0), bf="0")
    data = bytearray(path.read_bytes())
    chance = random.Random(0)
    for _ in range(60):
        data[chance.randrange(len(data) // 4, len(data))] ^= 1 << chance.randrange(8)
    path.write_bytes(data)
    frames = read(path, None)
    pts = [frame.pts for frame in frames]
    assert len(frames) > 90
    assert pts == sorted(set(pts))


def test_too_many_broken_packets_are_an_error_not_an_end(tmp_path: Path) -> None:
    path = write_video(tmp_path / "v.mp4", constant_rate(4.0), {"movflags": "faststart"})
    data = bytearray(path.read_bytes())
    with av.open(str(path)) as container:
        spans = [(packet.pos, packet.size) for packet in container.demux(video=0) if packet.size]
    for position, size in spans[30:]:
        data[position : position + size] = bytes(size)
    path.write_bytes(data)
    with (
        open_source(path, options=SourceOptions(max_broken=20)) as source,
        pytest.raises(SourceError, match="in a row"),
    ):
        list(source)


def missing(path: Path) -> Path:
    return path / "none.mp4"


def empty(path: Path) -> Path:
    (path / "empty.mp4").touch()
    return path / "empty.mp4"


def text(path: Path) -> Path:
    (path / "text.mp4").write_text("not a video\n" * 200)
    return path / "text.mp4"


def noise(path: Path) -> Path:
    (path / "noise.mp4").write_bytes(random.Random(0).randbytes(5000))
    return path / "noise.mp4"


def index_lost(path: Path) -> Path:
    video = write_video(path / "lost.mp4", constant_rate(2.0))
    data = video.read_bytes()
    video.write_bytes(data[: data.index(b"moov")])
    return video


def nothing_decodable(path: Path) -> Path:
    video = write_video(path / "zeros.mp4", constant_rate(1.0), {"movflags": "faststart"})
    data = bytearray(video.read_bytes())
    start = data.index(b"mdat") + 4
    data[start:] = bytes(len(data) - start)
    video.write_bytes(data)
    return video


def sound(path: Path) -> Path:
    return write_audio(path / "sound.m4a")


def sound_with_cover(path: Path) -> Path:
    return write_audio(path / "cover.mp4", cover=True)


def folder_without_pictures(path: Path) -> Path:
    (path / "folder").mkdir()
    (path / "folder" / "notes.txt").touch()
    return path / "folder"


@pytest.mark.parametrize(
    ("make", "cause"),
    [
        (missing, "no such file"),
        (empty, "empty"),
        (text, "text file"),
        (noise, "not a video"),
        (index_lost, "moov"),
        (nothing_decodable, "no picture could be decoded"),
        (sound, "only sound"),
        (sound_with_cover, "cover picture"),
        (folder_without_pictures, "no pictures"),
    ],
)
def test_what_is_not_a_video_is_named_with_its_cause(tmp_path: Path, make: Callable[[Path], Path], cause: str) -> None:
    path = make(tmp_path)
    with pytest.raises(SourceError, match=cause) as caught:
        read(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("uri", ["gopher://host/x", "concat:a.mp4|b.mp4", "data:video/mp4;base64,AAAA"])
def test_unknown_schemes_are_refused(uri: str) -> None:
    with pytest.raises(SourceError, match="not supported"):
        open_source(uri)


@pytest.mark.parametrize("name", ["list.m3u8", "list.mp4"])
@pytest.mark.parametrize("head", ["#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:2,\nfile://{}\n#EXT-X-ENDLIST\n"])
def test_a_playlist_cannot_read_local_files(tmp_path: Path, name: str, head: str) -> None:
    secret = write_video(tmp_path / "secret.ts", constant_rate(2.0))
    (tmp_path / name).write_text(head.format(secret))
    with pytest.raises(SourceError, match="playlist"):
        read(tmp_path / name)


def test_a_concat_script_cannot_read_local_files(tmp_path: Path) -> None:
    write_video(tmp_path / "secret.mp4", constant_rate(2.0))
    (tmp_path / "list.mp4").write_text("ffconcat version 1.0\nfile secret.mp4\n")
    with pytest.raises(SourceError, match="playlist"):
        read(tmp_path / "list.mp4")
