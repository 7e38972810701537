"""The decord backend: the same frames as PyAV where it is safe, and refusal elsewhere."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from media import constant_rate, number_of, skip_start, turn_clockwise, write_audio, write_video

from streamvlm.errors import SourceError
from streamvlm.source import SourceOptions, open_source

pytest.importorskip("decord", reason="decord has no wheel for this platform")

DECORD = SourceOptions(backend="decord")
VARIABLE = [0.0, 0.1, 0.2, 0.45, 0.5, 0.9, 1.3, 1.31, 1.32, 2.6, 2.7, 3.05, 3.5, 3.52, 4.0]


@pytest.mark.parametrize("fps", [0.5, 3.0, None])
@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
@pytest.mark.parametrize("times", [constant_rate(4.0), VARIABLE], ids=["constant", "variable"])
def test_decord_equals_pyav(tmp_path: Path, times: list[float], suffix: str, fps: float | None) -> None:
    path = write_video(tmp_path / f"v{suffix}", times)
    with open_source(path, fps=fps) as reference, open_source(path, fps=fps, options=DECORD) as source:
        expected, frames = list(reference), list(source)
    assert [frame.pts for frame in frames] == pytest.approx([frame.pts for frame in expected], abs=1e-5)
    assert all(torch.equal(a.data, b.data) for a, b in zip(frames, expected, strict=True))


def test_decord_applies_rotation(tmp_path: Path) -> None:
    path = write_video(tmp_path / "v.mp4", constant_rate(2.0), turn=1)
    turn_clockwise(path)
    with open_source(path, options=DECORD) as source:
        assert [number_of(frame.data) for frame in source] == [0, 15, 30, 45]


def test_decord_is_refused_where_it_reads_wrongly(tmp_path: Path) -> None:
    stream = write_video(tmp_path / "v.ts", constant_rate(1.0))
    edited = write_video(tmp_path / "v.mp4", constant_rate(3.0))
    skip_start(edited, 12)
    for uri in (str(stream), str(edited), str(tmp_path), "http://127.0.0.1:9/v.mp4", "0"):
        with pytest.raises(SourceError, match="use the pyav backend"):
            open_source(uri, options=DECORD)


def test_decord_names_files_without_video_and_files_cut_off(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="no video track"):
        open_source(write_audio(tmp_path / "a.m4a"), options=DECORD)
    path = write_video(tmp_path / "v.mp4", constant_rate(4.0), {"movflags": "faststart"})
    data = path.read_bytes()
    path.write_bytes(data[: (data.index(b"mdat") + len(data)) // 2])
    with pytest.raises(SourceError, match="cut off"):
        open_source(path, options=DECORD)


def test_decord_closes(tmp_path: Path) -> None:
    source = open_source(write_video(tmp_path / "v.mp4", constant_rate(2.0)), options=DECORD)
    next(source)
    source.close()
    assert list(source) == []
