"""The region of interest by question: where the model looks for an answer, what is kept there, whom that concerns."""

from __future__ import annotations

from collections.abc import Iterable
from statistics import mean
from typing import Any

import pytest
import torch
from driver import Driver
from driver import random_blocks as encoded_blocks
from families import FAMILIES, random_model
from offline import official, random_scene, token_rows, video_arguments
from pruned import FULL, Line, random_blocks
from test_agent import LONG
from test_pruning import noise, patches, shown
from torch import Tensor
from torch.nn.functional import cosine_similarity
from torch.testing import assert_close

from streamvlm import Agent, FramePerceived, ModelConfig, StreamEvent, format_prune, load_model, parse_prune
from streamvlm.engine.alarm import Alarm, Rule
from streamvlm.engine.interests import texts_of
from streamvlm.engine.triggers.probe import Probe
from streamvlm.engine.watches import Sentry, Watch
from streamvlm.models.glance import glance
from streamvlm.pruning.economy import Economy
from streamvlm.pruning.protocols import StreamFacts, TokenBlock
from streamvlm.pruning.roi import Roi, renewed
from streamvlm.types import VisionTokens
from streamvlm.world.scene import CANVAS, cell_center
from streamvlm.world.story import Story
from streamvlm.world.video import frames as rendered

ASK = "what colour is it?"


# where the model looks


@pytest.mark.parametrize("family", FAMILIES)
@torch.inference_mode()
def test_what_matters_is_what_the_official_models_last_row_attends_to(family: str) -> None:
    scene = random_scene(family, blocks=1)
    model = scene.model
    tokens = model.encode(scene.frames, scene.spans)[0]
    share, rows = glance(model, tokens, scene.question)
    layouts = scene.layouts()
    arguments = {**token_rows(model, layouts), **video_arguments(model, model.preprocess(scene.frames))}
    attentions = official(family, "eager")(**arguments, output_attentions=True).attentions
    visual = torch.cat([layout.visual for layout in layouts])
    layers = [layer[0, :, -1, visual].mean(0) for layer in attentions]
    expected = torch.stack([layer / layer.sum() for layer in layers]).mean(0)
    assert rows == sum(map(len, layouts)) and expected.max() > 1.1 * expected.min()
    assert_close(share, expected, atol=1e-5, rtol=0)
    assert abs(float(share.sum()) - 1) < 1e-5


PLATE, EDGE = 46, 6  # pixels, the shorter side of a sign, and what of a thing's box may lie in a token that is not its

Looked = tuple[VisionTokens, str, Tensor]  # a picture, what is named in it, and the places where that is, bool [16]


def looks(worlds: int = 12) -> list[Looked]:
    """The sign and every thing of worlds that were never trained on, as they are after four seconds."""
    model, found = load_model(ModelConfig()), []
    for seed in range(2_600_000, 2_600_000 + worlds):
        scene = Story(seed).scene_at(4.0)
        if scene is None:
            continue
        pictures = [torch.from_numpy(p.copy()).permute(2, 0, 1) for t, p in rendered(Story(seed), 4.5, 2) if t >= 3.5]
        tokens = model.encode(torch.stack(pictures[:2]), [(3.5, 0.5)])[0]
        found += [(tokens, f"{t.color} {t.shape}", covered(t.cell, t.size, t.offset)) for t in scene.things]
        found += [] if scene.sign is None else [(tokens, "sign", covered(scene.sign.cell, PLATE))]
    assert len(found) > worlds
    return found


def covered(cell: int, side: float, offset: tuple[float, float] = (0.0, 0.0)) -> Tensor:
    """bool [16]: the tokens of which a box of so many pixels covers more than its edge."""
    token = CANVAS / 4
    middles = [middle + moved for middle, moved in zip(cell_center(cell), offset, strict=True)]
    inside = [torch.arange(16) % 4 * token, torch.arange(16) // 4 * token]
    lengths = [
        (torch.clamp(start + token, max=middle + side / 2) - torch.clamp(start, min=middle - side / 2))
        for start, middle in zip(inside, middles, strict=True)
    ]
    return (lengths[0] > EDGE) & (lengths[1] > EDGE)


def told_apart(score: Tensor, there: Tensor) -> float:
    """How often a place where it is scores higher than one where it is not: 0.5 by chance, 1 always."""
    apart = score[there].unsqueeze(1) - score[~there].unsqueeze(0)
    return float(((apart > 0).float() + 0.5 * (apart == 0)).mean())


@torch.inference_mode()
def test_the_embedded_model_looks_where_a_thing_is_and_its_embedding_says_less_of_it() -> None:
    """The second is how regions are found with CLIP, whose pictures and words were trained to be alike."""
    model = load_model(ModelConfig())
    by_attention: dict[bool, list[float]] = {True: [], False: []}
    by_embedding: list[float] = []
    for tokens, name, there in looks():
        question = "what number is on the sign?" if name == "sign" else f"where is the {name}?"
        share, _ = glance(model, tokens, question)
        by_attention[name == "sign"].append(told_apart(share, there))
        words = model.embed(torch.tensor(model.tokenize(question))).float().mean(0)
        if name != "sign":
            by_embedding.append(told_apart(cosine_similarity(tokens.embeds.float(), words, dim=1), there))
    assert min(mean(found) for found in by_attention.values()) > 0.75, "by chance it is 0.5"
    assert mean(by_embedding) < mean(by_attention[False]) - 0.1


# what is kept


def changed_and_kept(roi: str, blocks: list[TokenBlock]) -> list[tuple[TokenBlock, TokenBlock]]:
    """What changed of every patch, with its scores, and what is kept of that."""
    line = Line(f"dtd(by=features, tau=0.01)+{roi}")
    found: list[tuple[TokenBlock, TokenBlock]] = []
    for block in blocks:
        changed = line.stages[0].prune(block)
        found.append((changed, line.stages[1].prune(changed)))
        for stage in line.stages:
            stage.note(found[-1][1])
    return found


def test_inside_everything_that_changed_is_kept_and_outside_what_changed_much() -> None:
    blocks = random_blocks(12)
    left_out = 0
    for changed, kept in changed_and_kept(f"roi(question='{ASK}', outside=0.3, share=0.25)", blocks):
        assert changed.score is not None and kept.score is not None
        scores = dict(zip(changed.tokens.slot.tolist(), changed.score.tolist(), strict=True))
        slots = kept.tokens.slot.tolist()
        assert set(slots) <= set(scores) and slots == sorted(slots)
        assert {s for s, score in scores.items() if score >= 0.3} <= set(slots)
        inside = {s for s, score in zip(slots, kept.score.tolist(), strict=True) if score > scores[s]}
        assert len(inside) <= FULL / 4 and all(scores[s] >= 0.3 for s in set(slots) - inside)
        left_out += len(scores) - len(slots)
    assert left_out > 0
    assert all(len(a) == len(b) for a, b in changed_and_kept(f"roi(question='{ASK}', outside=0)", blocks))


def test_a_cap_after_it_takes_what_matters_first() -> None:
    block = random_blocks(1)[0]
    model = random_model("qwen3_vl")
    with torch.inference_mode():
        share, _ = glance(model, block.tokens, ASK)
    assert set(Line(f"roi(question='{ASK}')+cap(3)")(block).tokens.slot.tolist()) == set(share.topk(3).indices.tolist())


def test_a_fixed_question_is_looked_for_every_so_often_and_the_cost_is_counted() -> None:
    economy = Economy(
        parse_prune(f"roi(question='{ASK}', every=1)+cap(5)"), StreamFacts(random_model("qwen3_vl"), 2.0, 16)
    )
    saved = [economy.see(patch).saved for patch in patches(noise(12))]  # a patch of a second every half
    assert [bool(s.looked) for s in saved] == [True, True, True, True, True, True]
    rare = Economy(
        parse_prune(f"roi(question='{ASK}', every=3)+cap(5)"), StreamFacts(random_model("qwen3_vl"), 2.0, 16)
    )
    rarely = [rare.see(patch).saved for patch in patches(noise(12))]
    assert [bool(s.looked) for s in rarely] == [True, False, False, True, False, False]
    assert all(a.pruned == b.pruned for a, b in zip(saved, rarely, strict=True))
    assert rarely[1].prefill_flops > rarely[0].prefill_flops


def test_more_questions_than_it_may_look_for_at_once_take_turns() -> None:
    economy = Economy(parse_prune("roi(asked=true)+cap(5)"), StreamFacts(random_model("qwen3_vl"), 2.0, 16))
    economy.interests.texts = tuple(f"what is number {n}?" for n in range(10))
    looked = [economy.see(patch).saved.looked for patch in patches(noise(6))]
    stage: Any = economy._stages[0]
    assert all(looked) and set(stage._found) == set(economy.interests.texts)


def test_places_are_remembered_as_they_were_seen_last() -> None:
    blocks = random_blocks(2)
    first, second = (b.tokens for b in blocks)
    both = renewed(first, blocks[1].keep(torch.arange(FULL) % 3 == 0).tokens)
    assert both.slot.tolist() == list(range(FULL)) and both.pts == second.pts
    for slot in range(FULL):
        newest = second if slot % 3 == 0 else first
        assert torch.equal(both.embeds[slot], newest.embeds[slot])
        assert all(torch.equal(a[slot], b[slot]) for a, b in zip(both.deepstack, newest.deepstack, strict=True))


# whom it concerns


Kept = dict[float, tuple[int, ...]]  # by time, without the first patch, which is there before anybody can listen


def kept(spec: str, *, ask: bool = False, watch: bool = False) -> Kept:
    """What is kept of every patch of the same stream, with and without somebody who wants something of it."""
    with Agent(random_model("llava_onevision")) as agent, agent.watch(shown(noise(30)), prune=spec) as stream:
        channel = stream.listen()
        if watch:
            stream.watch("it is red")
        if ask:
            stream.ask(ASK, at=7.0, max_new_tokens=2)
        stream.wait(LONG)
    return heard(channel)


def heard(events: Iterable[StreamEvent]) -> Kept:
    found = {event.pts: event.kept for event in events if isinstance(event, FramePerceived) and event.pts > 0}
    assert len(found) == 29
    return found


@pytest.mark.parametrize("spec", ["dtd+cap(3)", f"roi(question='{ASK}')+cap(3)"])
def test_unless_it_is_told_to_perception_does_not_depend_on_who_asks(spec: str) -> None:
    alone = kept(spec)
    assert kept(spec, ask=True) == kept(spec, watch=True) == alone


def test_with_asked_it_does_and_that_is_what_it_is_for() -> None:
    """Documented in docs/design.md: the one mode in which what is perceived depends on readers."""
    spec = "roi(asked=true)+cap(3)"
    alone, asked, watched = kept(spec), kept(spec, ask=True), kept(spec, watch=True)
    assert alone == kept("cap(3)"), "nobody asks: nothing is of more interest"
    assert asked != alone and watched != alone and asked != watched
    late = [pts for pts in alone if pts > 10.0]  # some patches are encoded ahead
    assert [asked[t] for t in late] == [alone[t] for t in late] != [watched[t] for t in late], (
        "answered: of no interest"
    )


def test_what_is_asked_of_one_stream_is_nothing_to_another() -> None:
    spec, pictures = "roi(asked=true)+cap(3)", noise(30)
    model = random_model("llava_onevision")
    with (
        Agent(model) as agent,
        agent.watch(shown(pictures), prune=spec) as one,
        agent.watch(shown(pictures), prune=spec) as other,
    ):
        channel = other.listen()
        one.watch("it is red")
        one.wait(LONG)
        other.wait(LONG)
    assert heard(channel) == kept("cap(3)")


def test_two_at_once_see_each_as_alone() -> None:
    def begun(text: str) -> Economy:
        economy = Economy(parse_prune("dtd+roi(asked=true)+cap(3)"), StreamFacts(random_model("qwen3_vl"), 2.0, 16.0))
        economy.interests.texts = (text,)
        return economy

    texts, films = ("is it red?", "where is the cross?"), (noise(8, seed=1), noise(8, seed=2))
    apart = [
        [e.see(p).tokens.slot.tolist() for p in patches(f)]
        for t, f in zip(texts, films, strict=True)
        for e in [begun(t)]
    ]
    both, mixed = [begun(text) for text in texts], ([], [])  # type: ignore[var-annotated]
    for pair in zip(*map(patches, films), strict=True):
        for number, patch in enumerate(pair):
            mixed[number].append(both[number].see(patch).tokens.slot.tolist())
    assert list(mixed) == apart


def test_what_waits_and_what_is_watched_for_is_of_interest_and_what_is_answered_no_more() -> None:
    model = random_model("llava_onevision")
    driver = Driver(model)
    stream = driver.watch(encoded_blocks(model, 4))
    driver.ask(stream, ASK, at=1.0)
    driver.ask(stream, ASK, at=1.5)
    watch = Watch("it is red", Probe(), Rule(), None)
    stream.mind.add(Sentry(watch, Alarm(watch.rule), lambda event: None))
    assert texts_of(stream) == (Probe().question("it is red"), ASK)
    driver.run()
    assert texts_of(stream) == (Probe().question("it is red"),)
    watch.end()
    assert texts_of(stream) == ()


# words


@pytest.mark.parametrize(
    ("spec", "problem"),
    [
        ("roi(question='')", "question must be a question in quotes, got ''"),
        ("roi(asked=maybe)", "roi: asked must be true or false, got 'maybe'"),
        ("roi(question=3)", "question must be a question in quotes, got 3"),
        ("roi(asked=true, share=0)", r"share must be in \(0, 1\] and every more than 0 seconds, got 0"),
        ("roi(asked=true, every=0)", "every more than 0 seconds, got 0.25 and 0"),
        ("roi(asked=true, right=0.5)", "a rectangle, or question and asked, not both"),
    ],
)
def test_wrong_settings_are_named_with_what_is_allowed(spec: str, problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        parse_prune(spec)


@pytest.mark.parametrize("question", ["what number + sign is it?", 'is it "red"?', "it's", "none", "red"])
def test_a_question_in_words_is_the_one_in_the_record(question: str) -> None:
    records = (Roi(question=question, asked=True),)
    assert parse_prune(format_prune(records)) == records
