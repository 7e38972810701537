"""`--show-tokens` and `streamvlm prunes`: what a person sees of pruning."""

from __future__ import annotations

import json
from pathlib import Path

import av
import numpy as np
import pytest
from typer.testing import CliRunner

from streamvlm.cli.app import app
from streamvlm.demo.shading import shaded

runner = CliRunner()


def test_what_was_left_out_is_darkened() -> None:
    picture = np.full((40, 40, 3), 200, np.uint8)
    shown = shaded(picture, (4, 4), [0, 5])
    centres = shown[5::10, 5::10, 0]
    assert centres[0, 0] == centres[1, 1] == 200
    assert int((centres == 50).sum()) == 14
    assert shown[10, 15, 0] == 120 and shown[15, 10, 0] == 120  # lines between patches


def test_the_tokens_of_a_watched_video_can_be_seen(world_video: Path, model_folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "tokens.mp4"
    arguments = ["watch", str(world_video), "--model", str(model_folder), "--json"]
    done = runner.invoke(app, [*arguments, "--prune", "dtd(refresh=1000)", "--show-tokens", str(out)])
    assert done.exit_code == 0, done.output
    end = json.loads(done.stdout.strip().splitlines()[-1])
    assert end["frames"] == 60 and end["saved"]["patches"] == 30
    assert 0 < end["saved"]["pruned"] < end["saved"]["tokens"] and end["saved"]["prefill_flops"] > 0
    with av.open(str(out)) as film, av.open(str(world_video)) as source:
        pictures = [(f.time, f.to_ndarray(format="rgb24").mean()) for f in film.decode(video=0)]
        bright = [f.to_ndarray(format="rgb24").mean() for f in source.decode(video=0)]
    assert [t for t, _ in pictures] == pytest.approx([i / 2 for i in range(60)], abs=0.01)
    light = [a / b for (_, a), b in zip(pictures, bright, strict=True)]
    assert light[0] > 0.75  # the first frame is kept whole, but for the lines
    assert np.mean(light) < 0.6


def test_methods_are_listed_with_settings_and_papers() -> None:
    rows = {row["name"]: row for row in json.loads(runner.invoke(app, ["prunes", "--json"]).output)}
    assert {"gate", "dtd", "stc", "cap", "tome", "keynorm", "infinipot", "livevlm", "resv"} <= set(rows)
    assert rows["cap"]["settings"] == "tokens" and "2504.17343" in rows["dtd"]["paper"]
    assert all(row["does"] and row["paper"] for row in rows.values())
    assert "dtd(" in runner.invoke(app, ["prunes"]).output


def test_a_wrong_composition_is_told_before_a_model_is_loaded(world_video: Path) -> None:
    done = runner.invoke(app, ["watch", str(world_video), "--model", "/nowhere", "--prune", "dtdd"])
    assert done.exit_code == 2 and "unknown pruning method 'dtdd'" in done.output
