"""Files decoded by several threads: the same frames at the same times as by one, whatever the file."""

from __future__ import annotations

import threading
from pathlib import Path

import av
import pytest
from media import constant_rate, number_of, write_video

from streamvlm.errors import SourceError
from streamvlm.source import Source, SourceOptions, open_source
from streamvlm.source.finite import FiniteSource
from streamvlm.source.parallel import ParallelSource
from streamvlm.types import Frame

PARALLEL = SourceOptions(workers=3)


def uneven(seconds: float) -> list[float]:
    """Times of a variable frame rate: bursts and pauses."""
    times, at, step = [], 0.0, 0
    while at < seconds:
        times.append(at)
        at += (0.02, 0.05, 0.31, 0.04)[step % 4]
        step += 1
    return times


def same(one: list[Frame], other: list[Frame]) -> bool:
    about = [[(f.pts, f.duration, f.gap, f.size) for f in frames] for frames in (one, other)]
    return about[0] == about[1] and all(a.data.equal(b.data) for a, b in zip(one, other, strict=True))


def read(path: Path, fps: float | None, options: SourceOptions | None = None) -> tuple[Source, list[Frame]]:
    with open_source(path, fps=fps, options=options) as source:
        return source, list(source)


@pytest.mark.parametrize("fps", [None, 2.0, 7.0])
@pytest.mark.parametrize("gop", [30, 250])
@pytest.mark.parametrize("rate", ["constant", "variable"])
@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
def test_frames_are_identical(tmp_path: Path, fps: float | None, gop: int, rate: str, suffix: str) -> None:
    times = constant_rate(20, 20) if rate == "constant" else uneven(40)
    path = write_video(tmp_path / f"video.{suffix}", times, g=str(gop))
    one, expected = read(path, fps)
    several, frames = read(path, fps, PARALLEL)
    assert isinstance(one, FiniteSource) and isinstance(several, ParallelSource)
    assert same(frames, expected) and several.stats == one.stats and several.duration == one.duration


def test_open_groups_are_exact_too(tmp_path: Path) -> None:
    params = {"x264-params": "open-gop=1:scenecut=0"}
    path = write_video(tmp_path / "open.mkv", constant_rate(20, 20), None, g="30", bf="3", **params)
    with av.open(str(path)) as container:
        packets = [(p.pts, p.is_keyframe) for p in container.demux(video=0) if p.pts is not None]
    keys = [pts for pts, key in packets if key]
    later = packets[next(i for i, (pts, _) in enumerate(packets) if pts == keys[1]) + 1 :]
    assert any(pts < keys[1] for pts, _ in later), "the encoder made no open group"
    several, frames = read(path, None, PARALLEL)
    assert isinstance(several, ParallelSource) and same(frames, read(path, None)[1])


def test_a_damaged_stretch_costs_its_frames_only(tmp_path: Path) -> None:
    path = write_video(tmp_path / "video.mp4", constant_rate(24, 10), g="40", bf="0")
    with av.open(str(path)) as container:
        packets = [p for p in container.demux(video=0) if p.size]
        spots = [(p.pos, p.size, round(float(p.pts * p.time_base) * 10)) for p in packets]
        keys = [n for p, (_, _, n) in zip(packets, spots, strict=True) if p.is_keyframe]
    data = bytearray(path.read_bytes())
    for position, size, number in spots:
        if keys[2] <= number < keys[4]:
            data[position + 4 : position + size] = bytes(size - 4)
    path.write_bytes(data)
    source, frames = read(path, None, PARALLEL)
    assert source.stats.packets_broken > 0
    by_time = {round(f.pts * 10): number_of(f.data) for f in frames}
    whole = [n for n in range(240) if not keys[2] <= n < keys[4]]
    assert [by_time.get(n) for n in whole] == whole


def test_what_cannot_be_cut_is_decoded_by_one_thread(tmp_path: Path) -> None:
    stream = write_video(tmp_path / "video.ts", constant_rate(10, 10))
    single = write_video(tmp_path / "single.mp4", constant_rate(5, 10), g="1000")
    for path in (stream, single):
        source, frames = read(path, None, PARALLEL)
        assert isinstance(source, FiniteSource) and same(frames, read(path, None)[1])


def test_a_file_of_nothing_says_so(tmp_path: Path) -> None:
    path = tmp_path / "empty.mp4"
    path.write_bytes(b"")
    with pytest.raises(SourceError, match="the file is empty"):
        open_source(path, options=PARALLEL)


def test_closing_early_ends_every_thread(tmp_path: Path) -> None:
    path = write_video(tmp_path / "video.mp4", constant_rate(30, 20), g="20")
    options = SourceOptions(workers=3, ahead_bytes=3 * 128 * 64 * 3 * 4)
    source = open_source(path, fps=None, options=options)
    assert [next(source).pts for _ in range(3)] == pytest.approx([0, 0.05, 0.1])
    assert any(t.name.startswith("streamvlm-decode") for t in threading.enumerate())
    source.close()
    source.close()
    assert not any(t.name.startswith("streamvlm-decode") for t in threading.enumerate())


def test_pictures_held_ready_are_bounded(tmp_path: Path) -> None:
    path = write_video(tmp_path / "video.mp4", constant_rate(30, 20), g="20")
    options = SourceOptions(workers=2, ahead_bytes=2 * 5 * 128 * 64 * 3)
    with open_source(path, fps=None, options=options) as source:
        assert isinstance(source, ParallelSource)
        for _ in source:
            held = sum(len(shelf.frames) for shelf in source._shelves if not shelf.done)
            assert held <= 2 * 6
