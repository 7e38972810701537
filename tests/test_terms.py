"""Per question: whether it may use what is stored and what was noted, and whether it is noted itself."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from families import random_model
from test_agent import LONG, frames

from streamvlm import Agent, Answer, Stream
from streamvlm.benchmarks.measure import film

FPS, SECONDS, WINDOW = 2.0, 20.0, 4.0
QUESTIONS = ((12.0, "what is there now?"), (19.0, "what happened at 0:05?"))
WAYS: dict[str, dict[str, Any]] = {
    "window": {"memory": False, "notes": False},
    "notes": {"memory": False, "notes": True},
    "memory": {"memory": True, "notes": False},
    "both": {"memory": True, "notes": True},
}


@pytest.fixture(scope="module")
def agent() -> Iterator[Agent]:
    with Agent.from_pretrained("tiny") as agent:
        yield agent


def watch(agent: Agent, store: Path | None, **options: Any) -> Stream:
    kept = None if store is None else str(store)
    return agent.watch(film(7, SECONDS, FPS), fps=FPS, window_seconds=WINDOW, store=kept, **options)


def said(answer: Answer) -> tuple[str, tuple[tuple[float, float], ...], list[float], int]:
    """What was answered, seen, brought back, and read before it was written."""
    text = answer.text(LONG)
    return text, answer.evidence, [moment.start for moment in answer.recalled], answer.tokens_read


@pytest.fixture(scope="module")
def together(agent: Agent, tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Any]]:
    """Every question in every way at the same moment, of one stream that keeps everything."""
    found: dict[str, list[Any]] = {way: [] for way in WAYS}
    with watch(agent, tmp_path_factory.mktemp("together"), notes=True) as stream:
        for at, question in QUESTIONS:
            for way, terms in WAYS.items():
                found[way].append(said(stream.ask(question, at=at, noted=False, **terms)))
        assert stream.notes() and all(note.kind != "answer" for note in stream.notes())
    return found


@pytest.mark.parametrize(("way", "keeps", "jots"), [("window", False, False), ("notes", False, True),
                                                    ("memory", True, False), ("both", True, True)])  # fmt: skip
def test_an_answer_is_that_of_a_stream_that_keeps_no_more(
    agent: Agent, together: dict[str, list[Any]], tmp_path: Path, way: str, keeps: bool, jots: bool
) -> None:
    with watch(agent, tmp_path if keeps else None, notes=jots) as stream:
        alone = [said(stream.ask(q, at=at, noted=False if jots else None)) for at, q in QUESTIONS]
    assert together[way] == alone


def test_what_may_not_be_used_is_not_read(together: dict[str, list[Any]]) -> None:
    read = {way: sum(one[3] for one in answers) for way, answers in together.items()}
    assert read["window"] < read["notes"] and read["window"] < read["memory"] < read["both"]
    assert all(recalled for _, _, recalled, _ in together["memory"])
    assert not any(recalled for way in ("window", "notes") for _, _, recalled, _ in together[way])


def test_an_answer_that_is_not_noted_reaches_no_later_question(agent: Agent) -> None:
    def second(**first: Any) -> tuple[int, int]:
        with watch(agent, None, notes=True) as stream:
            stream.ask(QUESTIONS[0][1], at=4.0, **first).text(LONG)
            later = stream.ask(QUESTIONS[0][1], at=12.0, noted=False)
            later.text(LONG)
            return later.tokens_read, sum(note.kind == "answer" for note in stream.notes())

    (noted, one), (without, none) = second(), second(noted=False)
    assert (one, none) == (1, 0)
    assert noted > without, "what was answered is shown to the next who asks"


def test_a_question_to_a_file_is_shown_what_was_due_by_its_moment(agent: Agent) -> None:
    with watch(agent, None, notes=True) as stream:
        stream.ask("?", at=19.0, noted=False).text(LONG)
        before = stream.notes()
        stream.ask("?", at=19.0, noted=False).text(LONG)
        assert stream.notes() == before, "nothing was still being written when the first was asked"


def test_wrong_terms_are_refused() -> None:
    with Agent(random_model("llava_onevision")) as agent, agent.watch(frames(4)) as stream:
        with pytest.raises(
            ValueError, match="memory=True needs what this stream does not keep: watch it with store=FOLDER"
        ):
            stream.ask("what?", memory=True)
        with pytest.raises(ValueError, match="notes=True needs what this stream does not keep"):
            stream.ask("what?", notes=True)
        with pytest.raises(ValueError, match="noted=True needs"):
            stream.ask("what?", noted=True)
        with pytest.raises(ValueError, match="memory must be True, False, or None"):
            stream.ask("what?", memory="no")  # type: ignore[arg-type]
        assert stream.ask("what?", memory=False, notes=False, noted=False).text(LONG) is not None
        with pytest.raises(ValueError, match="memory=False forbids it"):
            stream.ask("what?", between=(0, 1), memory=False)
