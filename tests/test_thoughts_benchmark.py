"""The benchmark of thoughts asks what is true of the whole stream, and counts what is written after the question."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from streamvlm.benchmarks import harness, tables, thoughts
from streamvlm.train.architecture import Shape, export, new_model
from streamvlm.world.story import Story
from streamvlm.world.wording import statement

SMALL = Shape(vision_depth=2, vision_hidden=32, text_layers=2, text_hidden=32, text_intermediate=32, head_dim=8)


def test_questions_are_about_everything_and_their_answers_are_true() -> None:
    story = Story(11)
    asked = thoughts.questions(story, 60.0, 9)
    told = [statement(e) for e in story.between(1.0, 59.0) if e.stop <= 59.0]
    assert len({one.text for one in asked}) == 9
    for one in asked:
        if one.text.startswith("how many things"):
            verb = one.text.removesuffix("?").split()[-1]
            doing = [text for text in told if text.endswith(f" {verb}") and " moved to " not in text]
            assert one.answer == str(len([text for text in doing if text != "the sign left"]))
        elif one.text.startswith("what happened right after "):
            before = one.text.removeprefix("what happened right after ").removesuffix("?")
            assert told[told.index(before) + 1] == one.answer
        else:
            assert one.answer in ("yes", "no")
    assert asked == thoughts.questions(story, 60.0, 9)
    with pytest.raises(ValueError, match="questions can be asked about 4"):
        thoughts.questions(story, 4.0, 9)


def way(accuracy: float, tokens: float) -> dict[str, Any]:
    return {"accuracy": accuracy, "tokens_after": tokens}


@pytest.mark.parametrize(
    ("notes", "holds"), [(way(0.8, 5.0), True), (way(0.9, 5.1), False), (way(0.7, 1.0), False), (way(0.79, 4.0), True)]
)
def test_few_tokens_count_at_equal_accuracy_only(notes: dict[str, Any], holds: bool) -> None:
    assert thoughts.claim({"after": way(0.8, 10.0), "notes": notes})["notes"]["holds"] is holds


def test_it_runs_and_what_was_thought_before_is_not_written_after(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    export(new_model(SMALL, 0, tmp_path / "model"), tmp_path / "model")
    monkeypatch.setattr(harness, "RESULTS", tmp_path)
    options = ["--model", str(tmp_path / "model"), "--worlds", "1", "--questions", "2", "--length", "14", "--save"]
    thoughts.main(options)
    ways = json.loads((tmp_path / "thoughts.json").read_text())["ways"]
    assert set(ways) == set(thoughts.WAYS)
    assert all(one["asked"] == 2 for one in ways.values())
    assert ways["direct"]["rows_before_per_min"] == ways["after"]["rows_before_per_min"] == 0
    assert ways["tracked"]["rows_before_per_min"] > ways["notes"]["rows_before_per_min"] > 0
    assert ways["after"]["tokens_after"] > ways["direct"]["tokens_after"]
    assert "keeping track of the question" in tables.section("thoughts", tmp_path)
