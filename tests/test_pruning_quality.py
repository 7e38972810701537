"""The instrument that compares a question's reading with and without pruning."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from families import random_model

from streamvlm import Agent, Frame
from streamvlm.benchmarks.perf.quality import Reading, against, attention_error, divergence, watching


def shown(n: int = 8) -> Iterator[Frame]:
    generator = torch.Generator().manual_seed(1)
    for i in range(n):
        yield Frame(torch.randint(0, 256, (3, 64, 64), dtype=torch.uint8, generator=generator), i * 0.5, 0.5)


def readings(prune: str | None) -> list[Reading]:
    """Of two questions, asked one after the other."""
    model = random_model("qwen3_vl")
    with watching(model) as watcher, Agent(model) as agent, agent.watch(shown(), prune=prune) as stream:
        for at in (1.5, 3.0):
            watcher.expect()
            stream.ask("what now?", at=at, max_new_tokens=3).text(60)
    return watcher.readings


def test_what_keeps_everything_reads_the_same_to_the_bit() -> None:
    none, everything = readings(None), readings("cap(1000)")
    assert len(none) == len(everything) == 2
    for a, b in zip(none, everything, strict=True):
        assert torch.equal(a.logits, b.logits) and torch.equal(a.attention, b.attention)
    assert against(everything, none) == {"attention_error": 0.0, "logit_kl": 0.0}
    assert not torch.equal(none[0].logits, none[1].logits)  # two questions were read, not one twice


def test_fewer_tokens_read_further_away() -> None:
    none = readings(None)
    few, fewer = (against(readings(f"cap({n})"), none) for n in (12, 1))
    assert 0 < few["attention_error"] < fewer["attention_error"] and fewer["logit_kl"] > 0


def test_the_measures_are_their_formulas() -> None:
    right = Reading(torch.tensor([[3.0, 4.0], [0.0, 2.0]]), torch.tensor([1.0, 0.0]).log())
    got = Reading(torch.tensor([[3.0, 3.0], [0.0, 2.0]]), torch.tensor([0.5, 0.5]).log())
    assert attention_error(got, right) == pytest.approx((1 / 5 + 0) / 2)
    even = Reading(right.attention, torch.tensor([0.5, 0.5]).log())
    uneven = Reading(right.attention, torch.tensor([0.25, 0.75]).log())
    expected = 0.5 * torch.tensor(0.5 / 0.25).log() + 0.5 * torch.tensor(0.5 / 0.75).log()
    assert divergence(uneven, even) == pytest.approx(float(expected))


def test_nothing_listens_afterwards() -> None:
    model = random_model("qwen3_vl")
    with watching(model):
        pass
    assert not model.module.get_output_embeddings()._forward_hooks
    assert not any(layer.self_attn.o_proj._forward_pre_hooks for layer in model.language_model.layers)
