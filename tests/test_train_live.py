"""Live answers are trained as the engine writes them: where their rows stand, and which frames each of them sees."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import cycle, islice, pairwise
from pathlib import Path

import pytest
import torch
from driver import Driver, random_blocks
from sight import Row, Script, Sight, Witness, batch_sight
from training import MICRO, micro_plan, specs

from streamvlm.engine.perceiver import Block
from streamvlm.engine.step import StreamWork
from streamvlm.models.base import VisionLanguageModel
from streamvlm.models.loading import load_model
from streamvlm.settings import ModelConfig
from streamvlm.train import architecture
from streamvlm.train.architecture import export, new_model
from streamvlm.train.clips import Clips, load_clips
from streamvlm.train.episodes import Asked, Episode, Recipe, make_episode
from streamvlm.train.packing import Packer
from streamvlm.train.plan import Stage
from streamvlm.train.shots import Shot
from streamvlm.world.questions import Question

# The second is asked while the first is still being answered, the last where few frames are left to come.
SCRIPT = (
    ("what colour is it?", 2, "red and then blue and then green"), ("and then?", 5, "it left to the top left"),
    ("now?", 10, "nothing moved, nothing at all"),
)  # fmt: skip
NAMES = [text for text, _, _ in SCRIPT]
BLOCKS = 12


@pytest.fixture(scope="module")
def embedded(tmp_path_factory: pytest.TempPathFactory) -> VisionLanguageModel:
    """A small random model with the embedded one's tokenizer and pictures, which says that it knows live answers."""
    folder = tmp_path_factory.mktemp("embedded")
    export(new_model(MICRO, 0, folder), folder, live=("group_decoupled",))
    return load_model(ModelConfig(model=str(folder), device="cpu"))


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Clips:
    return load_clips(replace(specs()["slow"], frames=60), tmp_path_factory.mktemp("cache"))


@dataclass
class Clerk(Witness):
    """Notes as well which frame was the newest that was over and done with when each token was read."""

    frames: int = 0
    follows: dict[str, list[int]] = field(default_factory=dict)

    def _note(self, work: StreamWork) -> None:
        for turn in work.turns:
            if turn.reader.tokens:
                self.follows.setdefault(turn.reader.answer.question, []).append(self.frames - 1)
        self.frames += work.perception is not None and work.perception.block is not None
        super()._note(work)


def watched(model: VisionLanguageModel, blocks: Sequence[Block], pace: Sequence[int]) -> Clerk:
    """The engine on a stream that shows so many frames a step, in turns, with live answers from the script."""
    driver, clerk = Driver(model), Clerk()
    driver.recordings = Script(model, SCRIPT)
    driver.engine._prepare = clerk.prepare
    stream = driver.watch([blocks[0]], max_answer_tokens=20, live="group_decoupled")
    answers = [driver.ask(stream, text, blocks[at].last_pts) for text, at, _ in SCRIPT]
    shown = 1
    for more in islice(cycle(pace), 4 * BLOCKS):
        driver.show(stream, list(blocks[shown : shown + more]))
        shown += more
        driver.step()
    driver.run()
    assert [answer.text() for answer in answers] == [said for _, _, said in SCRIPT]
    return clerk


def packed(
    model: VisionLanguageModel, blocks: Sequence[Block], asked: Sequence[Asked], read: dict[str, int]
) -> dict[Row, Sight]:
    """What training lets the rows of the same stream see, but for the last tokens, which inference never reads."""
    shots = tuple(Shot(0, i, block.tokens.pts, max(0, i - 1)) for i, block in enumerate(blocks))
    batch = Packer(model).batch([Episode(False, shots, 0, tuple(asked))])
    seen = batch_sight(batch.mask[0, 0], batch.positions[0], batch.block[0], NAMES, range(10_000))
    return {row: sight for row, sight in seen.items() if row[1] < read[row[0]]}


def live(clerk: Clerk) -> list[Asked]:
    return [
        Asked(at, Question("color", text, said), live=True, follows=tuple(clerk.follows[text]))
        for text, at, said in SCRIPT
    ]


@pytest.mark.parametrize("pace", [(1,), (1, 0), (0, 0, 1, 1, 1)])
def test_a_live_answer_is_packed_as_the_engine_writes_it(embedded: VisionLanguageModel, pace: tuple[int, ...]) -> None:
    blocks = random_blocks(embedded, BLOCKS, size=(64, 64))
    clerk = watched(embedded, blocks, pace)
    assert all(len(set(clerk.follows[text])) > 2 for text in NAMES[:2]), "frames arrived while they were written"
    assert packed(embedded, blocks, live(clerk), clerk.counts) == clerk.seen


@pytest.mark.parametrize("change", ["origin", "snapshot", "sooner", "question", "position"])
def test_the_comparison_notices_a_change(
    embedded: VisionLanguageModel, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    blocks = random_blocks(embedded, BLOCKS, size=(64, 64))
    clerk = watched(embedded, blocks, (1,))
    first, *others = live(clerk)
    if change == "origin":
        monkeypatch.setattr("streamvlm.train.packing.ORIGIN", 1)
    changed = {
        "snapshot": replace(first, follows=()),
        "sooner": replace(first, follows=tuple(shot + 1 for shot in first.follows)),
        "question": replace(first, shot=first.shot + 1),
        "position": replace(first, live=False),
    }
    assert packed(embedded, blocks, [changed.get(change, first), *others], clerk.counts) != clerk.seen


def test_without_a_share_episodes_are_what_they_were(clips: Clips) -> None:
    """The text and the answer of a question are the same whether it is live."""
    for seed in range(30):
        plain = make_episode(clips, 10, 1, random.Random(seed))
        (one,) = make_episode(clips, 10, 1, random.Random(seed), Recipe(live=1.0)).asked
        assert (replace(one, live=False, follows=()),) == plain.asked and not plain.asked[0].live
        assert one.live == (len(plain.shots) - 1 - one.shot >= 2)


def test_where_frames_are_brought_back_no_answer_is_live(clips: Clips) -> None:
    found = 0
    for seed in range(20):
        plain, taught = (
            make_episode(clips, 10, 5, random.Random(seed), Recipe(recall=1.0, live=share)) for share in (0.0, 1.0)
        )
        if plain.recalled:
            assert plain.asked == taught.asked
            found += 1
    assert found > 5


def test_answers_follow_the_window_to_its_end(clips: Clips) -> None:
    rng, kinds = random.Random(0), {"color": 1.0, "action": 1.0, "narrate": 1.0, "watch": 1.0}
    asked, paces = [], set()
    for _ in range(60):
        episode = make_episode(clips, 12, 6, rng, Recipe(kinds, live=0.5))
        last = len(episode.shots) - 1
        asked += [
            one for one in episode.asked if one.shot <= last - 2 and one.question.task not in ("narrate", "watch")
        ]
        for one in (one for one in episode.asked if one.live):
            assert one in asked and one.follows[-1] == last
            steps = [b - a for a, b in pairwise((one.shot, *one.follows))]
            assert set(steps) <= {0, 1, 2}
            paces |= {*steps}
        assert not any(one.follows for one in episode.asked if not one.live)
    assert paces == {0, 1, 2}
    assert 0.35 < sum(one.live for one in asked) / len(asked) < 0.65


def test_a_live_answer_that_outlasts_the_window_sees_all_of_it(embedded: VisionLanguageModel) -> None:
    shots = tuple(Shot(0, i, i / 2, max(0, i - 1)) for i in range(5))
    asked = Asked(1, Question("color", "what?", SCRIPT[0][2]), (1,), live=True, follows=(2, 4))
    batch = Packer(embedded).batch([Episode(False, shots, 0, (asked,))])
    rows = Packer(embedded).rows(Episode(False, shots, 0, (asked,)))
    mine = rows.block == 1
    read = len(embedded.question_layout("what?"))
    assert rows.moment[mine].tolist() == [1] * read + [2] + [4] * (int(mine.sum()) - read - 1)
    assert rows.positions[mine].tolist() == [[i] * 3 for i in range(int(mine.sum()))]
    # It still points from the question's last row at the frames that show the answer.
    ((_, row),) = batch.pointers.row.tolist()
    assert row == int(mine.nonzero()[read - 1])
    assert torch.equal(batch.pointers.evidence[0], batch.visual[0] & (rows.moment == 1))


def test_a_share_is_a_share_and_reaches_the_recipe(tmp_path: Path) -> None:
    for share in (-0.1, 1.5):
        with pytest.raises(ValueError, match=rf"live is a share in 0\.\.1, got {share}"):
            Stage("s", 1, 1, (0, 1), (1, 1), 1e-3, live=share)
    plan = micro_plan(tmp_path)
    assert plan.live == () and plan.stages[0].recipe.live == 0.0
    taught = replace(plan, stages=(plan.stages[0], replace(plan.stages[1], live=0.25)))
    assert taught.live == ("group_decoupled",) and taught.stages[1].recipe.live == 0.25


def test_an_exported_model_names_the_schemes_it_has_learnt(tmp_path: Path) -> None:
    export(new_model(MICRO, 0, tmp_path / "new"), tmp_path / "new")
    plain = architecture.load_model(tmp_path / "new")
    assert not hasattr(plain.module.config, "streamvlm_live")
    export(plain, tmp_path / "taught", live=("group_decoupled",))
    taught = architecture.load_model(tmp_path / "taught")
    export(taught, tmp_path / "again")
    assert architecture.load_model(tmp_path / "again").module.config.streamvlm_live == ["group_decoupled"]
    export(taught, tmp_path / "both", live=("overlapped", "group_decoupled"))
    both = architecture.load_model(tmp_path / "both")
    assert both.module.config.streamvlm_live == ["group_decoupled", "overlapped"]
