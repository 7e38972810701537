"""Readers, chunks and stretches of video."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from families import FAMILIES, overlapping, random_model
from talks import commentary, small_video, write_lines

from streamvlm.engine.perceiver import Block, Perceiver
from streamvlm.engine.tower import Tower
from streamvlm.errors import SourceError, TrainingError
from streamvlm.prompts import NARRATE, NOTHING, note_request, with_notes
from streamvlm.source import open_source
from streamvlm.train.collate import Weights
from streamvlm.train.conversations import Chunk, ChunkSpec, Conversation, Turn, cut
from streamvlm.train.finetune import hold_out
from streamvlm.train.readers import Reading, ReadSpec, read_files
from streamvlm.train.viewing import view

WORDS = [[0.2, 0.6, "and"], [0.7, 0.9, "here"], [2.1, 2.4, "he"], [2.4, 3.0, "scores"], [7.2, 7.9, "what"]]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("videos")
    small_video(path)
    return path


def read(folder: Path, tmp_path: Path, *lines: object, most_bad: float = 0.5, **spec: Any) -> Reading:
    return read_files([write_lines(tmp_path / "lines.jsonl", *lines)], ReadSpec(folder, **spec), most_bad)


def turns(reading: Reading) -> list[tuple[float, str, str, str]]:
    (conversation,) = reading.conversations
    return [(t.time, t.asked, t.answer, t.manner) for t in conversation.turns]


def test_commentary_is_a_decision_at_every_tick(folder: Path, tmp_path: Path) -> None:
    said = turns(read(folder, tmp_path, commentary("a.mp4", WORDS), own_query=True, history=4.0))
    assert [(time, answer, manner) for time, _, answer, manner in said] == [
        (1.0, "and here", "speak"), (2.0, NOTHING, "silent"), (3.0, "he scores", "speak"), (4.0, NOTHING, "silent"),
        (5.0, NOTHING, "silent"), (6.0, NOTHING, "silent"), (7.0, NOTHING, "silent"), (8.0, "what", "speak"),
    ]  # fmt: skip
    asked = {time: text for time, text, _, _ in said}
    assert asked[1.0] == "Commentate."
    assert asked[4.0] == with_notes([(1.0, "and here"), (3.0, "he scores")], "Commentate.")
    assert asked[7.0] == with_notes([(3.0, "he scores")], "Commentate.")
    assert asked[8.0] == "Commentate.", "what was said longer ago than the history is not repeated"
    plain = turns(read(folder, tmp_path, commentary("a.mp4", WORDS)))
    assert {text for _, text, _, _ in plain} == {NARRATE}, "the engine's narration asks in these words, every second"


def test_inf_streams_lines_have_earlier_text_and_questions(folder: Path, tmp_path: Path) -> None:
    words = [[4.1, 4.9, "goal"]]
    line = commentary(
        "a.mp4", words, 4.0, 7.0, query={"text": "", "previous": "it began"}, qa_stream=[[4.5, 5.5, "Who?", "Nobody."]]
    )
    reading = read(folder, tmp_path, line, history=16.0)
    assert reading.conversations[0].start == 4.0
    assert turns(reading) == [
        (5.0, with_notes([(4.0, "it began")], NARRATE), "goal", "speak"),
        (5.5, "Who?", "Nobody.", "answer"),
        (6.0, with_notes([(4.0, "it began"), (5.0, "goal")], NARRATE), NOTHING, "silent"),
        (7.0, with_notes([(4.0, "it began"), (5.0, "goal")], NARRATE), NOTHING, "silent"),
    ]


def test_vst_lines_are_thoughts_about_clips_and_an_answer(folder: Path, tmp_path: Path) -> None:
    def clip(start: float, stop: float, *texts: str) -> dict[str, object]:
        said = [{"type": "text", "text": text} for text in texts]
        video = {"type": "video", "video": "a.mp4", "video_start": start, "video_end": stop}
        return {"role": "user", "content": [video, *said]}

    line = [
        {"role": "previous text", "content": ""},
        clip(0, 4, "Time=0.0-4.0s"), {"role": "assistant", "content": [{"type": "text", "text": "A bar appears."}]},
        clip(4, 8), {"role": "assistant", "content": "It moves."},
        clip(8, 10, "Time=8.0-10.0s", "What moved?"), {"role": "assistant", "content": "A bar."},
    ]  # fmt: skip
    assert turns(read(folder, tmp_path, line)) == [
        (4.0, note_request(0.0), "A bar appears.", "note"),
        (8.0, note_request(4.0), "It moves.", "note"),
        (10.0, with_notes([(0.0, "A bar appears."), (4.0, "It moves.")], "What moved?"), "A bar.", "answer"),
    ]


def test_dialogues_wait_for_the_moment_of_their_answer(folder: Path, tmp_path: Path) -> None:
    line = {
        "video": "a.mp4",
        "thoughts": [{"timestamp": 1.5, "think": "Nothing yet."}],
        "conversations": [
            {"role": "user", "content": "Tell me when it turns white.", "timestamp": 2.0},
            {"role": "assistant", "content": "Now.", "timestamp": 4.5},
            {"role": "user", "content": "What colour is it?", "timestamp": 6.0},
            {"role": "assistant", "content": "White.", "timestamp": 6.0},
        ],
    }
    noted = with_notes([(0.0, "Nothing yet.")], "Tell me when it turns white.")
    assert turns(read(folder, tmp_path, line)) == [
        (1.5, note_request(0.0), "Nothing yet.", "note"),
        *[(time, noted, NOTHING, "silent") for time in (2.0, 3.0, 4.0)],
        (4.5, noted, "Now.", "speak"),
        (6.0, with_notes([(0.0, "Nothing yet.")], "What colour is it?"), "White.", "answer"),
    ]


def test_what_was_noted_is_known_while_waiting_too(folder: Path, tmp_path: Path) -> None:
    line = {
        "video": "a.mp4",
        "thoughts": [{"timestamp": 1.0, "think": "A."}, {"timestamp": 3.5, "think": "B."}],
        "conversations": [
            {"role": "user", "content": "When?", "timestamp": 2.0},
            {"role": "assistant", "content": "Now.", "timestamp": 4.0},
        ],
    }
    asked = {time: text for time, text, _, manner in turns(read(folder, tmp_path, line)) if manner != "note"}
    assert asked == {
        2.0: with_notes([(0.0, "A.")], "When?"),
        3.0: with_notes([(0.0, "A.")], "When?"),
        4.0: with_notes([(0.0, "A."), (1.0, "B.")], "When?"),
    }


def test_bad_lines_are_counted_and_shown(folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    lines = [
        "[0, 17, 230]",  # LiveCC's index of its own lines
        commentary("a.mp4", WORDS), commentary("a.mp4", WORDS), commentary("a.mp4", WORDS),
        "{broken", commentary("gone.mp4", WORDS), {"video": "a.mp4"},
        {"video": "a.mp4", "conversations": [{"role": "assistant", "content": "Hm.", "timestamp": 1.0}]},
        commentary("a.mp4", [[0.0, "word"]]), commentary("a.mp4", WORDS, 3.0, 3.5), 7,
        [{"role": "user", "content": "hello"}, {"role": "assistant", "content": "hi"}],
    ]  # fmt: skip
    with caplog.at_level("WARNING"):
        reading = read(folder, tmp_path, *lines, most_bad=0.8)
    assert len(reading.conversations) == 3
    numbers = [int(r.source.rpartition(":")[2]) for r in reading.rejected]
    assert numbers == [5, 6, 7, 8, 9, 10, 11, 12]
    why = {number: r.why for number, r in zip(numbers, reading.rejected, strict=True)}
    assert "gone.mp4" in why[6] and "nothing is said" in why[7] and "nobody has asked" in why[8]
    assert "shorter than a tick" in why[10] and "not int" in why[11] and "no message names a video" in why[12]
    assert "8 of 11 lines are left out" in caplog.text and "lines.jsonl:6" in caplog.text
    with pytest.raises(TrainingError, match=r"8 of 11 lines cannot be used, first .*lines\.jsonl:5"):
        read(folder, tmp_path, *lines, most_bad=0.5)


def test_a_file_that_is_missing_or_empty_is_named(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=r"none\.jsonl"):
        read_files([tmp_path / "none.jsonl"], ReadSpec(folder), 0.1)
    with pytest.raises(TrainingError, match=r"lines\.jsonl.*nothing to learn"):
        read(folder, tmp_path)


def talk(*times: float, start: float = 0.0) -> Conversation:
    return Conversation(Path("v.mp4"), tuple(Turn(t, "?", "!", "answer") for t in times), start, "x:1")


@pytest.mark.parametrize("overlap", [0.0, 4.0, 8.0, 12.0])
def test_every_turn_is_learnt_once_with_what_came_before(overlap: float) -> None:
    spec = ChunkSpec(16.0, overlap)
    times = [0.0, 0.5, 3.9, 4.0, 8.0, 15.9, 16.0, 16.1, 24.0, 31.0, 100.0, 100.5]
    chunks = list(cut(talk(*times), spec))
    assert sorted(t.time for c in chunks for t in c.turns) == times
    for chunk in chunks:
        assert chunk.start <= min(t.time for t in chunk.turns) and chunk.stop == max(t.time for t in chunk.turns)
        assert chunk.stop - chunk.start <= 16.0
        for turn in chunk.turns:
            assert turn.time - chunk.start >= min(overlap, turn.time) - 1e-6
    starts = [c.start for c in chunks]
    assert starts == sorted(set(starts)) and all(s % (16.0 - overlap) == 0 for s in starts)


def test_chunks_begin_where_the_talk_does() -> None:
    (chunk,) = cut(talk(103.0, start=100.0), ChunkSpec())
    assert chunk == Chunk(chunk.conversation, 100.0, 103.0, chunk.conversation.turns)


@pytest.mark.parametrize("family", [*FAMILIES, "overlapping"])
@pytest.mark.parametrize(("start", "stop"), [(0.0, 3.0), (0.0, 0.2), (0.5, 2.0), (3.7, 7.5), (8.0, 30.0), (5.0, 5.0)])
def test_a_view_is_what_the_engine_perceives(family: str, start: float, stop: float, folder: Path) -> None:
    """The same pictures in the same patches at the same times, read by seeking instead of from the beginning."""
    model = overlapping() if family == "overlapping" else random_model(family)
    source, t = open_source(folder / "a.mp4", fps=2.0), model.pixels.advance
    perceiver = Perceiver(source, Tower(model), paced=False, queue_frames=4, on_block=lambda: None)
    perceiver.start()
    blocks: list[Block] = []
    while more := perceiver.blocks.take(1)[0]:
        blocks += more
    perceiver.stop()
    seen = view(folder / "a.mp4", start, stop, 2.0, model)
    per = t / 2.0
    wanted = [b for i, b in enumerate(blocks) if i == 0 or (i >= int(start / per) and b.last_pts <= stop)]
    assert list(seen.starts) == [b.tokens.pts for b in wanted]
    assert list(seen.stops) == [b.last_pts for b in wanted]
    tokens = model.encode(seen.frames, [(0.0, 1.0)] * len(wanted))
    for mine, block in zip(tokens, wanted, strict=True):
        assert mine.grid == block.tokens.grid == seen.grid
        torch.testing.assert_close(mine.embeds, block.tokens.embeds, atol=1e-5, rtol=1e-4)


def test_a_question_sees_what_the_stream_had_shown(folder: Path) -> None:
    model = random_model("qwen3_vl")  # two frames a patch
    seen = view(folder / "a.mp4", 4.0, 8.0, 2.0, model)
    assert seen.starts == (0.0, 4.0, 5.0, 6.0, 7.0) and seen.stops == (0.5, 4.5, 5.5, 6.5, 7.5)
    assert [seen.seen_at(t) for t in (0.0, 4.4, 4.5, 5.4, 5.5, 8.0, 99.0)] == [1, 1, 2, 2, 3, 5, 5]


def test_a_view_of_an_odd_end_shows_its_last_frame_again(tmp_path: Path) -> None:
    path = small_video(tmp_path, "odd.mp4", seconds=2.3)  # 0, .5, 1, 1.5, 2 s at two a second
    seen = view(path, 0.0, 9.0, 2.0, random_model("qwen3_vl"))
    assert seen.stops == (0.5, 1.5, 2.0) and torch.equal(seen.frames[4], seen.frames[5])
    assert view(path, 0.0, 2.0, 2.0, random_model("qwen3_vl")).stops == (0.5, 1.5), "it may not have ended yet"


def test_a_video_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    (tmp_path / "bad.mp4").write_bytes(b"no video")
    with pytest.raises(SourceError, match=r"bad\.mp4"):
        view(tmp_path / "bad.mp4", 0.0, 1.0, 2.0, random_model("qwen3_vl"))


def test_balanced_weights_make_both_decisions_weigh_the_same() -> None:
    weights = Weights.balanced(speak=10, silent=90)
    assert 10 * weights.speak == pytest.approx(90 * weights.silent)
    assert Weights.balanced(1, 999).speak == 20.0, "clamped"
    assert Weights.balanced(0, 5) == Weights()
    turn = Turn(1.0, "?", "he scores", "speak")
    assert weights.of(turn, 3).tolist() == pytest.approx([weights.speak, 1.0, 1.0])
    assert weights.of(Turn(1.0, "?", NOTHING, "silent"), 2).tolist() == pytest.approx([weights.silent] * 2)
    assert weights.of(Turn(1.0, "?", "yes", "answer"), 2).tolist() == [1.0, 1.0]


def test_no_video_is_on_both_sides_of_the_split() -> None:
    talks = [Conversation(Path(f"{i // 3}.mp4"), talk(1.0).turns, 0.0, f"x:{i}") for i in range(30)]
    trained, held = hold_out(talks, 0.2, seed=1)
    assert len({c.video for c in held}) == 2 and len(trained) + len(held) == 30
    assert not {c.video for c in trained} & {c.video for c in held}
    assert hold_out(talks, 0.2, seed=1)[1] == held and hold_out(talks, 0.2, seed=2)[1] != held
    assert hold_out(talks[:3], 0.9, seed=1) == (talks[:3], [])
