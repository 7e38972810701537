"""The demo: one pass over a video, questions on the way, and how many answers were right."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from streamvlm.demo.__main__ import main, run
from streamvlm.demo.job import read_questions, same
from streamvlm.world.video import VideoSpec, render


@pytest.mark.parametrize(
    ("said", "true", "right"),
    [
        ("red", "red", True),
        ("Red.", "red", True),
        (" top left ! ", "top left", True),
        ("dark red", "red", False),
        ("", "red", False),
        ("1", "11", False),
    ],
)
def test_scoring_forgives_case_and_punctuation_at_the_end_only(said: str, true: str, right: bool) -> None:
    assert same(said, true) is right


def test_questions_come_in_time_order(tmp_path: Path) -> None:
    row = {"question": "what?", "answer": "it", "task": "t"}
    file = tmp_path / "qa.json"
    file.write_text(json.dumps([{"time": 4.0, **row}, {"time": 2.5, **row}]))
    assert [q.time for q in read_questions(file)] == [2.5, 4.0]


def test_one_pass_answers_every_question_at_its_time(
    tmp_path: Path, model_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    render(5, 20.0, tmp_path, VideoSpec(fps=4, size=64), questions=6)
    right, total = run(tmp_path / "video.mp4", tmp_path / "qa.json", str(model_folder))
    printed = capsys.readouterr().out
    questions = read_questions(tmp_path / "qa.json")
    assert (right, total) == (0, 6)  # an untrained model knows nothing
    lines = [line for line in printed.splitlines() if "WRONG" in line]
    for line, question in zip(lines, questions, strict=True):
        asked, as_of = (float(part.split()[-1]) for part in line.split(" s ")[:2])
        assert asked == question.time
        assert question.time - 1.0 <= as_of <= question.time
        assert question.question in line
    assert "40 frames, 0 dropped" in printed
    assert "slots" in printed


def test_the_shipped_model_answers_at_least_nine_of_the_shipped_ten(capsys: pytest.CaptureFixture[str]) -> None:
    assert main() == 0
    printed = capsys.readouterr().out.splitlines()
    assert printed[-1] in ("demo: 9/10 right", "demo: 10/10 right")
    past = printed[next(i for i, line in enumerate(printed) if line.startswith("Asked again")) :]
    assert sum(line.endswith("right") for line in past[:-1]) >= 4, "what left the window comes back from disk"
    shown = next(line for line in past if line.startswith("What it was shown"))
    assert Path(shown.split()[6]).read_bytes().startswith(b"\xff\xd8"), "a JPEG"
