"""The public API: Agent, Stream and Answer, on real threads."""

from __future__ import annotations

import asyncio
import gc
import threading
import time
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
import torch
from families import random_model

from streamvlm import (
    Agent,
    AnswerDone,
    AnswerPiece,
    AnswerStarted,
    BudgetError,
    Frame,
    FramePerceived,
    FramesDropped,
    Gap,
    ReaderCancelled,
    SourceError,
    Stream,
    StreamClosed,
    StreamEnded,
    StreamEvent,
    WatchConfig,
)
from streamvlm.engine.listeners import EARLY
from streamvlm.engine.stream import StreamState

LONG = 1000  # seconds; a hang fails the test by its timeout, never by this


def frames(n: int, *, fps: float = 2.0, seed: int = 0) -> Iterator[Frame]:
    generator = torch.Generator().manual_seed(seed)
    for i in range(n):
        pixels = torch.randint(0, 256, (3, 48, 64), dtype=torch.uint8, generator=generator)
        yield Frame(pixels, i / fps, 1 / fps)


class Camera:
    """A live source whose frames are let through one by one."""

    live = True
    uri = "test camera"

    def __init__(self, n: int, gap_before: int | None = None) -> None:
        self.allowed = threading.Semaphore(0)
        self.closed = False
        self._frames = list(frames(n))
        self._gap_before = gap_before

    def __iter__(self) -> Iterator[Frame]:
        for i, frame in enumerate(self._frames):
            self.allowed.acquire()
            if self.closed:
                return
            gap = 1.5 if i == self._gap_before else 0.0
            yield Frame(frame.data, frame.pts, frame.duration, time.monotonic(), gap)

    def show(self, n: int) -> None:
        self.allowed.release(n)

    def close(self) -> None:
        self.closed = True
        self.allowed.release()


@pytest.fixture(scope="module")
def agent() -> Iterator[Agent]:
    with Agent(random_model("llava_onevision"), watch=WatchConfig(window_seconds=4.0, max_answer_tokens=24)) as agent:
        yield agent


def test_a_file_plays_as_far_as_it_is_asked(agent: Agent) -> None:
    with agent.watch(frames(40)) as stream:
        answer = stream.ask("what is it?", at=5.0)
        assert answer.text(LONG) == answer.so_far
        assert (answer.asked_at, answer.as_of, stream.now) == (5.0, 5.0, 5.0)
        later = stream.ask("and now?", at=7.3)
        later.text(LONG)
        assert later.as_of == 7.0 and not stream.ended
        stats = stream.wait(LONG)
        assert stream.ended and stats.frames == 40
        assert stats.tokens_seen == stats.tokens_window + stats.tokens_stored + stats.tokens_dropped
        assert stats.tokens_dropped > 0 and stats.peak_slots <= stats.capacity


def test_an_answer_does_not_depend_on_what_is_asked_beside_it(agent: Agent) -> None:
    def ask(beside: int) -> str:
        with agent.watch(frames(30)) as stream:
            answer = stream.ask("what?", at=4.0, temperature=0.9, seed=4)
            for i in range(beside):
                stream.ask(f"other {i}?", at=4.0)
            stream.play()
            return answer.text(LONG)

    assert ask(0) == ask(7)


def test_pieces_add_up_to_the_text(agent: Agent) -> None:
    with agent.watch(frames(10)) as stream:
        answer = stream.ask("what?", at=2.0, temperature=1.5, seed=3)
        pieces = list(answer)
        assert "".join(pieces) == answer.text() and len(pieces) > 1
        assert list(answer) == pieces, "a finished answer can be read again"
        assert answer.ttft_s is not None and answer.ttft_s > 0
        assert answer.evidence[-1][1] == pytest.approx(2.5)


def test_questions_after_the_end_are_answered_from_what_was_seen(agent: Agent) -> None:
    with agent.watch(frames(6)) as stream:
        stream.wait(LONG)
        answer = stream.ask("what was it?", at=100.0)
        answer.text(LONG)
        assert answer.as_of == 2.5


def test_after_the_end_any_later_moment_may_be_asked_about(agent: Agent) -> None:
    with agent.watch(frames(6)) as stream:
        for moment in (100.0, 50.0):
            answer = stream.ask("what was it?", at=moment)
            answer.text(LONG)
            assert answer.as_of == 2.5
        with pytest.raises(ValueError, match=r"at=1.0 is past: the stream ended at 2.50 s"):
            stream.ask("and before?", at=1.0)


@pytest.mark.parametrize(
    ("question", "options", "message"),
    [
        ("  ", {}, "question is empty"),
        ("x" * 400, {}, "max_question_tokens allows 256"),
        ("what?", {"at": -1.0}, "at=-1.0 is not a moment"),
        ("what?", {"at": float("nan")}, "at=nan is not a moment"),
        ("what?", {"at": 1.0}, "at=1.0 is past"),
        ("what?", {"temprature": 1.0}, "unknown option 'temprature'; SamplingConfig has temperature"),
        ("what?", {"temperature": -1.0}, "temperature"),
    ],
)
def test_wrong_questions_say_what_is_wrong(agent: Agent, question: str, options: dict, message: str) -> None:  # type: ignore[type-arg]
    with agent.watch(frames(10)) as stream:
        stream.ask("warm up", at=3.0).text(LONG)
        with pytest.raises(ValueError, match=message):
            stream.ask(question, **options)
        assert stream.ask("still there?", at=4.0).text(LONG) is not None


def test_wrong_options_and_sources_say_what_is_wrong(agent: Agent) -> None:
    with pytest.raises(ValueError, match="unknown option 'policies'"):
        agent.watch(frames(1), policies="x")
    with pytest.raises(ValueError, match="policy"):
        agent.watch(frames(1), policy="magic")
    with pytest.raises(SourceError, match=r"nowhere\.mp4"):
        agent.watch("nowhere.mp4")


def test_a_source_that_breaks_ends_the_stream_and_keeps_what_was_seen(agent: Agent) -> None:
    def breaking() -> Iterator[Frame]:
        yield from frames(6)
        raise SourceError("cam", "the cable was pulled")

    with agent.watch(breaking()) as stream:
        with pytest.raises(SourceError, match="cable"):
            stream.wait(LONG)
        answer = stream.ask("what did you see?")
        answer.text(LONG)
        assert answer.as_of == 2.5


def test_full_attention_ends_when_its_capacity_does_and_can_still_be_asked(agent: Agent) -> None:
    with agent.watch(frames(40), policy="full", full_capacity_tokens=120) as stream:
        with pytest.raises(BudgetError, match="FullAttention may keep"):
            stream.wait(LONG)
        answer = stream.ask("what did you see?")
        answer.text(LONG)
        assert answer.as_of == stream.now and 0 < stream.stats.frames < 40
        assert stream.stats.tokens_seen == stream.stats.tokens_window


def test_a_stream_without_room_for_one_frame_fails_the_question(agent: Agent) -> None:
    with agent.watch(frames(3), policy="full", full_capacity_tokens=1, window_seconds=0.5) as stream:
        with pytest.raises(BudgetError, match="FullAttention may keep"):
            stream.wait(LONG)
        with pytest.raises(BudgetError, match="FullAttention may keep"):
            stream.ask("what did you see?").text(LONG)


def test_a_source_without_frames_fails_the_question(agent: Agent) -> None:
    with agent.watch(iter(())) as stream, pytest.raises(StreamClosed, match="before it showed a frame"):
        stream.ask("what?", at=1.0).text(LONG)


def test_cancelling_stops_the_writing(agent: Agent) -> None:
    with agent.watch(frames(20)) as stream:
        waiting = stream.ask("never reached", at=8.0)
        waiting.cancel()
        with pytest.raises(ReaderCancelled):
            waiting.text(LONG)
        assert waiting.status == "cancelled"


def test_a_question_can_be_cancelled_before_the_first_frame(agent: Agent) -> None:
    with agent.watch(Camera(3)) as stream:
        answer = stream.ask("what?")
        answer.cancel()
        with pytest.raises(ReaderCancelled):
            answer.text(20)


def test_closing_fails_what_is_open_and_is_idempotent(agent: Agent) -> None:
    camera = Camera(10)
    stream = agent.watch(camera)
    answer = stream.ask("what?", at=3.0)
    camera.show(2)
    stream.close()
    stream.close()
    with pytest.raises(StreamClosed):
        answer.text(LONG)
    with pytest.raises(StreamClosed):
        stream.ask("anyone?")
    assert camera.closed


def test_a_name_is_no_model_and_the_way_to_load_it_is_said() -> None:
    with pytest.raises(TypeError, match=r"Agent\.from_pretrained\('tiny'\)"):
        Agent("tiny")  # type: ignore[arg-type]


def test_closing_the_agent_closes_its_streams() -> None:
    agent = Agent(random_model("llava_onevision"))
    stream = agent.watch(Camera(3))
    agent.close()
    late, threads = Camera(3), threading.active_count()
    with pytest.raises(StreamClosed):
        agent.watch(late)
    assert late.closed and threading.active_count() == threads, "nobody is left watching"
    with pytest.raises(StreamClosed):
        stream.ask("what?")


def test_live_frames_are_perceived_as_they_come(agent: Agent) -> None:
    camera = Camera(6, gap_before=3)
    with agent.watch(camera) as stream:
        events = iter(stream.events())
        camera.show(1)
        first = next(events)
        assert isinstance(first, FramePerceived) and first.lag is not None and first.pts == 0.0
        answer = stream.ask("now?")
        answer.text(LONG)
        assert answer.as_of == 0.0 and answer.asked_at == 0.0
        camera.show(5)
        rest = list(_until_end(events))
        assert [e.seconds for e in rest if isinstance(e, Gap)] == [1.5]
        ended = rest[-1]
        assert isinstance(ended, StreamEnded) and ended.error is None
        assert ended.stats.frames + ended.stats.frames_dropped == 6
        dropped = sum(e.frames for e in rest if isinstance(e, FramesDropped))
        assert dropped == ended.stats.frames_dropped


def _until_end(events: Iterator[object]) -> Iterator[object]:
    for event in events:
        yield event
        if isinstance(event, StreamEnded):
            return


def test_a_slow_model_drops_the_oldest_frames_and_counts_them() -> None:
    """A live source never waits: with the engine held up, only the newest frames are kept."""
    hold, held = threading.Event(), threading.Event()

    def wait_once(stream: StreamState) -> None:
        held.set()
        hold.wait()

    with Agent(random_model("llava_onevision")) as agent:
        agent._engine._on_step = wait_once
        camera = Camera(40)
        with agent.watch(camera, queue_frames=2) as stream:
            listener = stream.listen()
            camera.show(1)
            held.wait()
            camera.show(39)
            while camera.allowed.acquire(blocking=False):
                camera.allowed.release()
            hold.set()
            stats = stream.wait(LONG)
            assert stats.frames + stats.frames_dropped == 40
            kept = [e.pts for e in _until_end(iter(listener)) if isinstance(e, FramePerceived)]
            assert kept[-1] == 19.5, "the newest frame is never the one that is dropped"


def test_events_tell_an_answers_whole_story(agent: Agent) -> None:
    with agent.watch(frames(8)) as stream:
        listener = stream.listen()
        answer = stream.ask("what?", at=2.0, temperature=1.2, seed=1)
        stream.wait(LONG)
        answer.text(LONG)
        story = []
        for event in listener:
            story.append(event)
            if any(isinstance(e, AnswerDone) for e in story) and any(isinstance(e, StreamEnded) for e in story):
                break
    about = [e for e in story if isinstance(e, AnswerStarted | AnswerPiece | AnswerDone)]
    assert isinstance(about[0], AnswerStarted) and isinstance(about[-1], AnswerDone)
    assert "".join(e.text for e in about if isinstance(e, AnswerPiece)) == answer.so_far
    assert [e.pts for e in story if isinstance(e, FramePerceived)] == [i / 2 for i in range(8)]


def test_whoever_listens_first_hears_what_came_before(agent: Agent) -> None:
    """A stream runs before anybody can listen to it; late listening loses nothing of a file's first frames."""
    with agent.watch(frames(3)) as stream:
        stream.wait(LONG)
        early = stream.listen()
        assert [e.pts for e in _until_end(iter(early)) if isinstance(e, FramePerceived)] == [0.0, 0.5, 1.0]
        second = stream.listen()
        answer = stream.ask("what?")
        answer.text(LONG)
        told = next(iter(second))
        assert isinstance(told, AnswerStarted), "only the first hears of what was before"
    with agent.watch(frames(EARLY + 20)) as stream:
        stream.wait(LONG)
        held = len(stream.listen().drain())
        assert held == EARLY and stream.stats.frames == EARLY + 20


def test_whoever_stops_listening_leaves_nothing_behind(agent: Agent) -> None:
    with agent.watch(frames(3)) as stream:
        kept = stream.listen()
        for _ in range(5):
            stream.listen()
        gc.collect()
        assert [listener() for listener in stream._listeners.channels] == [kept]
        stream.wait(LONG)
        assert any(isinstance(e, StreamEnded) for e in _until_end(iter(kept)))


def test_two_streams_on_one_agent_do_not_disturb_each_other(agent: Agent) -> None:
    def watch(seeds: list[int]) -> list[tuple[str, float | None]]:
        streams = [agent.watch(frames(20, seed=s)) for s in seeds]
        answers = [s.ask("what?", at=6.0, temperature=0.9, seed=7) for s in streams]
        for stream in streams:
            stream.play()
        said = [(a.text(LONG), a.as_of) for a in answers]
        for stream in streams:
            stream.close()
        return said

    assert watch([1, 2]) == watch([1]) + watch([2])


def test_async_use(agent: Agent) -> None:
    async def main() -> None:
        async with agent.watch(frames(30)) as stream:
            first = stream.ask("what?", at=2.0, temperature=1.2, seed=1)
            pieces = [piece async for piece in first]
            assert "".join(pieces) == await first
            answers = [stream.ask(f"what {i}?", at=4.0) for i in range(12)]  # more than may be written at once
            texts = await asyncio.gather(*answers)
            assert [a.so_far for a in answers] == list(texts)
            assert {a.as_of for a in answers} == {4.0}, "those that had to wait kept their snapshot"
            events = [event async for event in _until_end_async(stream)]
            assert isinstance(events[-1], StreamEnded)

    asyncio.run(main())


async def _until_end_async(stream: Stream) -> AsyncIterator[StreamEvent]:
    async for event in stream:
        yield event
        if isinstance(event, StreamEnded):
            return


def test_stop_strings_and_token_limits_end_an_answer(agent: Agent) -> None:
    with agent.watch(frames(6)) as stream:
        whole = stream.ask("what?", at=1.0, temperature=1.5, seed=3)
        text = whole.text(LONG)
        short = stream.ask("what?", at=1.0, temperature=1.5, seed=3, max_new_tokens=3)
        short.text(LONG)
        assert short.tokens == 3 and short.status == "truncated" and text.startswith(short.so_far.rstrip("�"))
        mark = text[4]
        cut = stream.ask("what?", at=1.0, temperature=1.5, seed=3, stop=(mark,))
        assert cut.text(LONG) == text[: text.index(mark)] and cut.status == "complete"


def test_nothing_of_a_stop_string_is_shown(agent: Agent) -> None:
    """This model writes a character at a time, so that a longer stop string always comes in parts."""
    sampling: dict[str, Any] = {"temperature": 1.5, "seed": 3}
    with agent.watch(frames(6)) as stream:
        text = stream.ask("what?", at=1.0, **sampling).text(LONG)
        mark = next(text[i : i + 3] for i in range(3, len(text)) if "\ufffd" not in text[i : i + 3])
        cut = stream.ask("what?", at=1.0, stop=("never written", mark), **sampling)
        assert "".join(cut) == text[: text.index(mark)] and cut.status == "complete"
        only_begun = stream.ask("what?", at=1.0, stop=(text[-1] + "never written",), **sampling)
        assert only_begun.text(LONG) == text


def test_a_timeout_leaves_the_answer_going(agent: Agent) -> None:
    camera = Camera(4)
    with agent.watch(camera) as stream:
        answer = stream.ask("what?", at=1.0)
        with pytest.raises(TimeoutError, match="what"):
            answer.text(timeout=0.01)
        camera.show(4)
        answer.text(LONG)
        assert answer.as_of == 1.0
