"""Choosing tokens."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from streamvlm.models.sampling import Sampler
from streamvlm.settings import SamplingConfig

EOS = (3, 7)


def logits(seed: int = 0, vocabulary: int = 40) -> Tensor:
    return torch.randn(vocabulary, generator=torch.Generator().manual_seed(seed)) * 2


def drawn(config: SamplingConfig, n: int = 200, prompt: tuple[int, ...] = (), *, changing: bool = False) -> list[int]:
    sampler = Sampler(config, list(prompt), EOS)
    return [sampler(logits(i if changing else 0)) for i in range(n)]


def test_greedy_takes_the_best() -> None:
    assert drawn(SamplingConfig(), changing=True) == [int(logits(i).argmax()) for i in range(200)]


def test_a_seed_fixes_the_tokens() -> None:
    first, again, other = (drawn(SamplingConfig(temperature=1.0, seed=s)) for s in (5, 5, 6))
    assert first == again != other


def test_without_a_seed_answers_differ() -> None:
    assert drawn(SamplingConfig(temperature=1.0)) != drawn(SamplingConfig(temperature=1.0))


def test_frequencies_follow_the_probabilities() -> None:
    """At temperature 2, over 20 000 draws: the binomial's standard deviation is below 0.0036."""
    counts = torch.bincount(torch.tensor(drawn(SamplingConfig(temperature=2.0, seed=1), 20_000)), minlength=40)
    assert (counts / 20_000 - (logits() / 2).softmax(-1)).abs().max() < 0.018


@pytest.mark.parametrize(
    "narrow",
    [{"top_k": 1}, {"top_p": 1e-6}, {"min_p": 1.0}, {"temperature": 1e-4}],
    ids=lambda narrow: next(iter(narrow)),
)
def test_the_narrowest_choice_is_greedy(narrow: dict[str, float]) -> None:
    config = SamplingConfig(**{"temperature": 1.0, "seed": 3, **narrow})  # type: ignore[arg-type]
    assert drawn(config, changing=True) == drawn(SamplingConfig(), changing=True)


def test_top_k_keeps_the_k_best() -> None:
    best = set(logits().topk(4).indices.tolist())
    assert set(drawn(SamplingConfig(temperature=5.0, top_k=4, seed=0))) == best


def test_top_p_and_min_p_keep_what_is_likely() -> None:
    likely = logits().softmax(-1)
    order = likely.argsort(descending=True)
    mass = likely[order].cumsum(0)
    nucleus = set(order[: int((mass < 0.7).sum()) + 1].tolist())
    assert set(drawn(SamplingConfig(temperature=1.0, top_p=0.7, seed=0), 2000)) <= nucleus
    above = set((likely >= 0.2 * likely.max()).nonzero().squeeze(1).tolist())
    assert set(drawn(SamplingConfig(temperature=1.0, min_p=0.2, seed=0), 2000)) == above


def test_repetition_penalty_moves_on_from_what_was_said_or_asked() -> None:
    """Greedy on constant logits says one token for ever; penalised it takes the next best each time."""
    order = logits().argsort(descending=True).tolist()
    assert drawn(SamplingConfig(), 3) == [order[0]] * 3
    penalised = SamplingConfig(repetition_penalty=1000.0)
    assert drawn(penalised, 3) == order[:3]
    assert drawn(penalised, 2, prompt=(order[0],)) == order[1:3]


def test_a_sampler_leaves_the_logits_alone() -> None:
    given = logits()
    Sampler(SamplingConfig(temperature=0.7, top_k=3, repetition_penalty=2.0, seed=1, min_new_tokens=5), [0], EOS)(given)
    assert torch.equal(given, logits())


def test_an_answer_can_be_kept_from_ending_too_soon() -> None:
    wants_to_end = logits()
    wants_to_end[list(EOS)] = torch.tensor([50.0, 60.0])
    sampler = Sampler(SamplingConfig(min_new_tokens=3), [1, 2], EOS)
    tokens = [sampler(wants_to_end) for _ in range(5)]
    best = int(logits().index_fill(0, torch.tensor(EOS), -100.0).argmax())
    assert tokens == [best] * 3 + [7] * 2


def test_whole_numbers_are_numbers() -> None:
    whole = SamplingConfig(temperature=1, repetition_penalty=2, top_p=1, seed=3)
    assert drawn(whole) == drawn(SamplingConfig(temperature=1.0, repetition_penalty=2.0, seed=3))


def test_a_seed_fits_its_generator() -> None:
    with pytest.raises(ValueError, match="seed must be less than"):
        SamplingConfig(seed=2**63)
    drawn(SamplingConfig(temperature=1.0, seed=2**63 - 1), n=1)


def test_a_lone_stop_string_is_refused() -> None:
    with pytest.raises(ValueError, match="stop must be a tuple of strings, got 'red'"):
        SamplingConfig(stop="red")  # type: ignore[arg-type]
