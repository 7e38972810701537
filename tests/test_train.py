from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from training import MICRO, specs

from streamvlm.train.architecture import export, load_model, new_model
from streamvlm.train.clips import Clips, load_clips
from streamvlm.train.curriculum import learning_rate, seen_pairs
from streamvlm.train.episodes import Asked, Episode, make_episode
from streamvlm.train.learner import Learner
from streamvlm.train.packing import BROUGHT, PADDING, Packer, visibility
from streamvlm.train.plan import Stage, load_plan
from streamvlm.train.shots import Shot
from streamvlm.train.vocabulary import build_tokenizer
from streamvlm.world.questions import Question
from streamvlm.world.scene import COLORS, SHAPES

PLAN_FILE = Path(__file__).parents[1] / "streamvlm" / "train" / "tiny.toml"


@pytest.fixture(scope="module")
def footage(tmp_path_factory: pytest.TempPathFactory) -> Clips:
    return load_clips(specs()["slow"], tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="module")
def learner(tmp_path_factory: pytest.TempPathFactory) -> Learner:
    return Learner(new_model(MICRO, 0, tmp_path_factory.mktemp("model"))).eval()


def _episode(*questions: tuple[int, str], frames: int = 4) -> Episode:
    shots = tuple(Shot(0, i, 100.0 + i / 2, max(0, i - 1)) for i in range(frames))
    asked = tuple(Asked(shot, Question("color", text, "red")) for shot, text in questions)
    return Episode(False, shots, 0, asked)


def _logits(learner: Learner, clips: Clips, episode: Episode) -> torch.Tensor:
    batch = Packer(learner.model).batch([episode])
    with torch.no_grad():
        return learner.answer_logits(batch, learner.see(seen_pairs(batch, clips)))[0]


@pytest.mark.parametrize(
    "text",
    [
        "What color is the circle?", "WHAT COLOUR IS THE  circle ??", "où est Zürich 漢字 🟥\n\ttab", "<12.5 seconds>",
        " leading and trailing ", "top left", "99999.9",
    ],
)  # fmt: skip
def test_any_text_survives_the_tokenizer(text: str) -> None:
    tokenizer = build_tokenizer()
    assert tokenizer.decode(tokenizer(text, add_special_tokens=False)["input_ids"]) == text


def test_timestamps_and_the_words_of_the_world_are_cheap() -> None:
    tokenizer = build_tokenizer()
    assert len(tokenizer) <= 2048
    assert len(tokenizer("<12.5 seconds>", add_special_tokens=False)["input_ids"]) == 6
    for word in (*COLORS, *SHAPES, "yes", "no", "none", "top", "left", "7"):
        assert len(tokenizer(word, add_special_tokens=False)["input_ids"]) == 1, word
        if word != "7":
            assert len(tokenizer(f" {word}", add_special_tokens=False)["input_ids"]) == 1, word


def test_visibility_is_the_rule_row_by_row() -> None:
    block = torch.tensor([[0, 0, 0, 0, 1, 1, 2, 2, PADDING]])
    moment = torch.tensor([[-1, 0, 0, 1, 0, 0, 1, 1, PADDING]])
    recalled = torch.tensor([[False, False, True, *[False] * 6]])
    mask = visibility(block, moment, recalled.long() * BROUGHT)[0]
    for q in range(9):
        for k in range(9):
            own = block[0, q] == block[0, k] != 0
            stream = block[0, k] == 0 and block[0, q] != PADDING and moment[0, k] <= moment[0, q]
            if recalled[0, k] and block[0, q] == 0:
                stream = stream & recalled[0, q]  # the window never sees what was brought back
            assert bool(mask[q, k]) == bool(k <= q and (own or stream)), (q, k)
    assert mask.diagonal().all()


def test_questions_stand_where_their_frame_left_the_cursor(learner: Learner) -> None:
    model, episode = learner.model, _episode((1, "what color is it?"), (3, "and now?"))
    rows = Packer(model).rows(episode)
    cursor = model.prefix_layout().extent
    for index, shot in enumerate(episode.shots):
        layout = model.frame_layout((4, 4), shot.pts)
        mine = (rows.block == 0) & (rows.moment == index)
        assert torch.equal(rows.ids[mine], layout.ids)
        assert torch.equal(rows.positions[mine], layout.positions + cursor)
        cursor += layout.extent
        for number, asked in enumerate(episode.asked, start=1):
            if asked.shot == index:
                assert rows.positions[rows.block == number][0].tolist() == [cursor] * 3
    learnt = rows.targets[rows.targets != PADDING]
    assert model.tokenizer.decode(learnt) == "red<|im_end|>" * 2


def test_questions_do_not_see_each_other_nor_the_future(learner: Learner, footage: Clips) -> None:
    first = "what color is the circle?"
    alone = _logits(learner, footage, _episode((1, first), frames=2))
    packed = _logits(learner, footage, _episode((1, first), (3, "is there a star?")))
    torch.testing.assert_close(packed[: len(alone)], alone, atol=1e-5, rtol=1e-4)
    changed = replace(footage, frames=footage.frames.clone())
    changed.frames[0, 2:] = 255 - changed.frames[0, 2:]
    future = _logits(learner, changed, _episode((1, first), (3, "is there a star?")))
    torch.testing.assert_close(future[: len(alone)], alone, atol=1e-5, rtol=1e-4)
    assert not torch.allclose(future[len(alone) :], packed[len(alone) :], atol=1e-4)


def test_episodes_are_as_asked_for_and_their_questions_are_true(footage: Clips) -> None:
    rng = random.Random(0)
    for window in (0, 1, 5):
        for _ in range(20):
            episode = make_episode(footage, window, 4, rng)
            assert len(episode.shots) == window + 1
            stamps = [shot.pts for shot in episode.shots]
            assert stamps == sorted(stamps) and stamps[0] >= 0 and stamps[-1] < 100_000
            for asked in episode.asked:
                shot = episode.shots[asked.shot]
                assert footage.scene(shot.clip, shot.frame) is not None


def test_labels_name_what_tokens_cover(footage: Clips) -> None:
    scene = footage.scene(0, 0)
    assert scene is not None
    seen = {(int(c), int(s)) for c, s, *_ in footage.labels[0, 0] if c}
    assert seen == {(list(COLORS).index(t.color) + 1, SHAPES.index(t.shape) + 1) for t in scene.things}


def test_learning_rate_warms_up_and_cools_down() -> None:
    stage = Stage("s", 100, 1, (0, 0), (1, 1), lr=1.0, warmup=10, final=0.1)
    curve = [learning_rate(stage, i) for i in range(100)]
    assert curve.index(max(curve)) in (9, 10)
    assert curve[0] == pytest.approx(0.1) and curve[-1] < 0.11


def test_the_exported_folder_is_a_complete_checkpoint(learner: Learner, tmp_path: Path) -> None:
    export(learner.model, tmp_path)
    names = {path.name for path in tmp_path.iterdir()}
    assert {"config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"} <= names
    assert {"preprocessor_config.json", "generation_config.json", "chat_template.jinja"} <= names
    assert load_model(tmp_path).eos_tokens == learner.model.eos_tokens


def test_the_shipped_plan_is_valid() -> None:
    plan = load_plan(PLAN_FILE)
    assert plan.validation.first_seed >= 1_000_000


@pytest.mark.parametrize(
    ("old", "new", "complaint"),
    [
        ("first_seed = 1000000", "first_seed = 200010", "overlap"),
        ("steps =", "stepps =", "stepps"),
        ('kind = "cuts"', 'kind = "fast"', "fast"),
    ],
)
def test_a_wrong_plan_says_what_is_wrong(tmp_path: Path, old: str, new: str, complaint: str) -> None:
    path = tmp_path / "plan.toml"
    path.write_text(PLAN_FILE.read_text().replace(old, new, 1))
    with pytest.raises(ValueError, match=complaint):
        load_plan(path)
