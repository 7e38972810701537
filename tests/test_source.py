"""Files and folders: which pictures come out, when, and what is said about inputs that are not videos."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from media import (
    HEIGHT,
    WIDTH,
    coded_picture,
    constant_rate,
    number_of,
    skip_start,
    transport_stream,
    turn_clockwise,
    write_audio,
    write_video,
)
from PIL import Image

from streamvlm.errors import SourceError
from streamvlm.source import SourceOptions, open_source
from streamvlm.types import Frame

VARIABLE = [0.0, 0.1, 0.2, 0.45, 0.5, 0.9, 1.3, 1.31, 1.32, 2.6, 2.7, 3.05, 3.5, 3.52, 4.0]


def read(path: Path, fps: float | None = 2.0, options: SourceOptions | None = None) -> list[Frame]:
    with open_source(path, fps=fps, options=options) as source:
        return list(source)


def numbers(frames: list[Frame]) -> list[int]:
    return [number_of(frame.data) for frame in frames]


def first_at_or_after_each_due_time(times: list[float], fps: float) -> list[int]:
    """The sampling rule, spelled out: one due time after the other."""
    chosen: list[int] = []
    due = 0
    while any(time > due / fps - 1e-3 for time in times):
        index = next(index for index, time in enumerate(times) if time > due / fps - 1e-3)
        if index not in chosen:
            chosen.append(index)
        due += 1
    return chosen


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".ts"])
@pytest.mark.parametrize("fps", [1.0, 2.0, 3.0, 7.5, 30.0, 60.0])
def test_constant_rate_is_sampled_exactly(tmp_path: Path, suffix: str, fps: float) -> None:
    times = constant_rate(3.0)
    frames = read(write_video(tmp_path / f"v{suffix}", times), fps)
    expected = first_at_or_after_each_due_time(times, fps)
    assert numbers(frames) == expected
    assert [frame.pts for frame in frames] == pytest.approx([times[index] for index in expected], abs=1.1e-3)
    assert all(frame.duration == 1 / fps and frame.captured is None and frame.gap == 0 for frame in frames)
    assert all(frame.data.dtype == torch.uint8 and frame.size == (HEIGHT, WIDTH) for frame in frames)


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".ts"])
@pytest.mark.parametrize("fps", [0.5, 2.0, 10.0])
def test_variable_rate_is_sampled_by_time_not_by_number(tmp_path: Path, suffix: str, fps: float) -> None:
    frames = read(write_video(tmp_path / f"v{suffix}", VARIABLE), fps)
    expected = first_at_or_after_each_due_time(VARIABLE, fps)
    assert numbers(frames) == expected
    assert [frame.pts for frame in frames] == pytest.approx([VARIABLE[index] for index in expected], abs=1.1e-3)


def test_without_fps_every_picture_comes_and_says_how_long_it_is_shown(tmp_path: Path) -> None:
    frames = read(write_video(tmp_path / "v.mkv", VARIABLE), None)
    assert numbers(frames) == list(range(len(VARIABLE)))
    assert [frame.pts for frame in frames] == pytest.approx(VARIABLE, abs=1.1e-3)
    assert all(frame.duration > 0 for frame in frames)


def test_time_starts_at_the_first_picture(tmp_path: Path) -> None:
    frames = read(write_video(tmp_path / "v.ts", [100 + time for time in constant_rate(2.0)]))
    assert [frame.pts for frame in frames] == pytest.approx([0.0, 0.5, 1.0, 1.5], abs=1e-3)


def test_pictures_are_right_to_the_colour(tmp_path: Path) -> None:
    frame = read(write_video(tmp_path / "v.mp4", constant_rate(0.5), crf="0"))[0]
    error = frame.data.permute(1, 2, 0).int() - torch.from_numpy(coded_picture(0)).int()
    assert error.abs().float().mean() < 3


def test_rotation_is_applied(tmp_path: Path) -> None:
    path = write_video(tmp_path / "v.mp4", constant_rate(2.0), turn=1)
    assert read(path)[0].size == (WIDTH, HEIGHT)
    turn_clockwise(path)
    frames = read(path)
    assert frames[0].size == (HEIGHT, WIDTH)
    assert numbers(frames) == [0, 15, 30, 45]


def test_edit_list_is_obeyed(tmp_path: Path) -> None:
    path = write_video(tmp_path / "v.mp4", constant_rate(3.0))
    skip_start(path, 12)
    frames = read(path, None)
    assert numbers(frames) == list(range(12, 90))
    assert frames[0].pts == 0.0
    assert frames[-1].pts == pytest.approx(77 / 30, abs=1e-3)


def test_resolution_may_change_on_the_way(tmp_path: Path) -> None:
    path = tmp_path / "v.ts"
    # The first part's times are moved by its two reordered pictures, so that none is negative.
    later = [2 + 2 / 30 + time for time in constant_rate(2.0)]
    parts = (
        transport_stream(constant_rate(2.0)),
        transport_stream(later, first=60, size=(2 * HEIGHT, 2 * WIDTH)),
    )
    path.write_bytes(b"".join(parts))
    frames = read(path)
    assert numbers(frames) == [0, 15, 30, 45, 60, 75, 90, 105]
    assert {frame.size for frame in frames} == {(HEIGHT, WIDTH), (2 * HEIGHT, 2 * WIDTH)}


def test_recordings_glued_together_go_on_in_time(tmp_path: Path) -> None:
    path = tmp_path / "v.ts"
    times = constant_rate(2.0)
    path.write_bytes(transport_stream(times) + transport_stream(times, first=60))
    frames = read(path)
    assert numbers(frames) == [0, 15, 30, 45, 60, 75, 90, 105]
    assert [frame.pts for frame in frames] == pytest.approx([index / 2 for index in range(8)], abs=0.04)


def test_reading_is_lazy_and_close_ends_it(tmp_path: Path) -> None:
    path = write_video(tmp_path / "v.mp4", constant_rate(5.0))
    source = open_source(path, fps=None)
    assert (source.uri, source.live) == (str(path), False)
    assert source.duration == pytest.approx(5.0, abs=0.1)
    next(source)
    assert source.stats.frames == 1
    source.close()
    source.close()
    assert list(source) == []
    with pytest.raises(StopIteration):
        next(source)


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="counts open files the Linux way")
def test_nothing_stays_open(tmp_path: Path) -> None:
    path = write_video(tmp_path / "v.mp4", constant_rate(1.0))
    audio = write_audio(tmp_path / "a.m4a")
    opened = set(os.listdir("/proc/self/fd"))
    with open_source(path) as left_early:
        next(left_early)
    open_source(path).close()
    ended = open_source(path)
    list(ended)
    with pytest.raises(SourceError):
        open_source(audio)
    assert set(os.listdir("/proc/self/fd")) == opened


@pytest.mark.parametrize("fps", [0.0, -1.0, float("nan"), float("inf")])
def test_impossible_rates_are_the_callers_mistake(tmp_path: Path, fps: float) -> None:
    with pytest.raises(ValueError, match="fps"):
        open_source(tmp_path, fps=fps)


# --- pictures -----------------------------------------------------------------------------------------------


def save_pictures(folder: Path, count: int) -> None:
    for number in range(count):
        Image.fromarray(coded_picture(number)).save(folder / f"shot{number}.png")


def test_a_folder_is_read_in_natural_order(tmp_path: Path) -> None:
    save_pictures(tmp_path, 12)
    frames = read(tmp_path, fps=4)
    assert numbers(frames) == list(range(12))
    assert [frame.pts for frame in frames] == [number / 4 for number in range(12)]
    assert torch.equal(frames[7].data, torch.from_numpy(coded_picture(7)).permute(2, 0, 1))


def test_a_broken_picture_costs_its_frame_only(tmp_path: Path) -> None:
    save_pictures(tmp_path, 5)
    (tmp_path / "shot2.png").write_bytes(b"broken")
    with open_source(tmp_path, fps=1) as source:
        frames = list(source)
        assert source.stats.packets_broken == 1
    assert numbers(frames) == [0, 1, 3, 4]
    assert [frame.pts for frame in frames] == [0, 1, 3, 4]


def test_one_picture_is_a_video_of_one_frame(tmp_path: Path) -> None:
    upright = Image.fromarray(coded_picture(9))
    exif = Image.Exif()
    exif[0x0112] = 6  # orientation: to be turned a quarter clockwise
    Image.fromarray(np.rot90(np.asarray(upright)).copy()).save(tmp_path / "photo.png", exif=exif)
    frames = read(tmp_path / "photo.png")
    assert numbers(frames) == [9]
