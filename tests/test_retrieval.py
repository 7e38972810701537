"""How blocks are represented and scored, and which are chosen."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from streamvlm.retrieval.clusters import Clusters
from streamvlm.retrieval.mean_key import MeanKey
from streamvlm.retrieval.methods import METHODS, method
from streamvlm.retrieval.pages import Pages
from streamvlm.retrieval.representatives import Method
from streamvlm.retrieval.selection import Budget, Candidate, Mass, TopK, merged, runs, select
from streamvlm.retrieval.top_tokens import TopTokens

LAYERS, HEADS, KV_HEADS, DIM = 3, 6, 2, 8


def keys_of(n: int, seed: int = 0) -> Tensor:
    return torch.randn(LAYERS, KV_HEADS, n, DIM, generator=torch.Generator().manual_seed(seed))


def query_of(seed: int = 99) -> Tensor:
    return torch.randn(LAYERS, HEADS, DIM, generator=torch.Generator().manual_seed(seed))


def blocks(how: Method, count: int = 5) -> list[Tensor]:
    return [how.represent(keys_of(10 + 7 * i, seed=i)) for i in range(count)]


def test_mean_key_scores_what_rekv_scores_with_keys_expanded_to_every_head() -> None:
    query = query_of()
    expected = []
    for i in range(5):
        expanded = keys_of(10 + 7 * i, seed=i).repeat_interleave(HEADS // KV_HEADS, dim=1)  # [layers, heads, n, dim]
        rekv = expanded.mean(2).flatten(1)  # [layers, heads · dim]
        expected.append((rekv * query.flatten(1)).sum(1))
    how = MeanKey()
    assert_close(how.score(query, KV_HEADS, blocks(how), "per_layer"), torch.stack(expected, dim=1))
    assert_close(how.score(query, KV_HEADS, blocks(how)), torch.stack(expected, dim=1).mean(0))


def test_query_heads_must_share_key_heads_evenly() -> None:
    with pytest.raises(ValueError, match="6 query heads cannot share 4"):
        MeanKey().project(query_of(), 4)


def test_top_tokens_are_the_mean_of_the_rows_that_received_most() -> None:
    keys = keys_of(9)
    received = torch.rand(LAYERS, KV_HEADS, 9, generator=torch.Generator().manual_seed(3))
    vectors = TopTokens(rows=2).represent(keys, received).view(LAYERS, KV_HEADS, DIM)
    for layer in range(LAYERS):
        for head in range(KV_HEADS):
            order = received[layer, head].argsort(descending=True)[:2]
            assert_close(vectors[layer, head], keys[layer, head, order].mean(0))


def test_top_tokens_without_attention_take_the_smallest_keys() -> None:
    keys = keys_of(6)
    keys[:, :, 4] *= 1e-3
    assert_close(TopTokens(rows=1).represent(keys)[:, 0], keys[:, :, 4].flatten(1))


def test_top_tokens_refuse_attention_of_the_wrong_shape() -> None:
    with pytest.raises(ValueError, match="received is"):
        TopTokens().represent(keys_of(6), torch.ones(LAYERS, HEADS, 6))


def test_fewer_rows_than_wanted_are_the_mean_key() -> None:
    assert_close(TopTokens(rows=50).represent(keys_of(6)), MeanKey().represent(keys_of(6)))
    assert_close(Pages(rows=50).represent(keys_of(6)), MeanKey().represent(keys_of(6)))


def test_pages_find_a_page_that_a_mean_hides() -> None:
    query = query_of()
    wanted = MeanKey().project(query, KV_HEADS).view(LAYERS, KV_HEADS, DIM)
    hidden = torch.zeros(LAYERS, KV_HEADS, 64, DIM)
    hidden[:, :, :16] = wanted.unsqueeze(2)
    hidden[:, :, 16:] = -wanted.unsqueeze(2) / 2
    plain = 0.1 * wanted.unsqueeze(2).expand(-1, -1, 64, -1)
    for how, best in ((Pages(), 0), (MeanKey(), 1)):
        represented = [how.represent(hidden), how.represent(plain)]
        assert int(how.score(query, KV_HEADS, represented).argmax()) == best


def test_the_last_page_may_be_short() -> None:
    keys = keys_of(20)
    vectors = Pages(rows=16).represent(keys)
    assert vectors.shape == (LAYERS, 2, KV_HEADS * DIM)
    assert_close(vectors[:, 1], keys[:, :, 16:].mean(2).flatten(1))


@pytest.mark.parametrize("bits", [0, 256])
def test_clusters_are_the_means_of_rows_alike(bits: int) -> None:
    centres = keys_of(3, seed=5)
    which = torch.tensor([0, 1, 0, 2, 2, 1, 0])
    keys = centres[:, :, which] + 0.01 * keys_of(7, seed=6)
    vectors = Clusters(bits=bits).represent(keys)
    expected = [keys[:, :, which == c].mean(2).flatten(1) for c in range(3)]
    assert_close(vectors, torch.stack(expected, dim=1))


def test_clusters_are_never_more_than_asked_for() -> None:
    assert Clusters(similarity=1.0, most=4).represent(keys_of(30)).shape[1] == 4
    assert Clusters(similarity=-1.0).represent(keys_of(30)).shape[1] == 1


@pytest.mark.parametrize("name", METHODS)
def test_every_method_says_how_wide_it_is_and_scores_blocks_of_any_length(name: str) -> None:
    how = method(name)
    represented = blocks(how)
    width = how.width(KV_HEADS, DIM)
    assert {(v.shape[0], v.shape[2], v.dtype) for v in represented} == {(LAYERS, width, torch.float32)}
    assert how.project(query_of(), KV_HEADS).shape == (LAYERS, width)
    assert how.score(query_of(), KV_HEADS, represented).shape == (5,)
    assert how.score(query_of(), KV_HEADS, represented, "per_layer").shape == (LAYERS, 5)


def test_an_unknown_method_is_refused() -> None:
    with pytest.raises(ValueError, match="must be one of mean_key"):
        method("best")


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: TopTokens(rows=0),
        lambda: Pages(rows=0),
        lambda: Clusters(similarity=2),
        lambda: Clusters(most=0),
        lambda: TopK(0),
        lambda: Mass(share=0),
        lambda: Mass(temperature=0),
        lambda: Budget(tokens=-1),
    ],
)
def test_settings_check_themselves(wrong: object) -> None:
    assert callable(wrong)
    with pytest.raises(ValueError, match="must be"):
        wrong()


def candidates(*scores: float, tokens: int = 10) -> list[Candidate]:
    """Blocks of two seconds, one after the other."""
    return [Candidate(i, score, 2.0 * i, 2.0 * i + 2, tokens, 4) for i, score in enumerate(scores)]


def ids(chosen: object) -> list[int]:
    return [c.block for c in chosen.candidates]  # type: ignore[attr-defined]


def test_the_best_are_chosen_and_come_in_time_order() -> None:
    chosen = select(candidates(5, 1, 9, 3, 7), TopK(3))
    assert ids(chosen) == [0, 2, 4]
    assert (chosen.tokens, chosen.positions) == (30, 12)


def test_ties_go_to_the_newer_block_whatever_the_order_given() -> None:
    given = candidates(1, 1, 1, 1)
    assert ids(select(given, TopK(2))) == ids(select(given[::-1], TopK(2))) == [2, 3]


def test_budgets_hold_in_tokens_and_in_positions() -> None:
    given = candidates(5, 1, 9, 3, 7)
    assert ids(select(given, TopK(5), budget=Budget(tokens=25))) == [2, 4]
    assert ids(select(given, TopK(5), budget=Budget(positions=4))) == [2]
    assert ids(select(given, TopK(5), budget=Budget(tokens=0))) == []


def test_a_block_too_big_for_the_budget_leaves_room_for_smaller_ones() -> None:
    given = [Candidate(0, 9.0, 0, 2, 100, 4), *candidates(0, 5, 4)[1:]]
    assert ids(select(given, TopK(3), budget=Budget(tokens=50))) == [1, 2]


def test_what_is_still_in_the_window_is_not_loaded_again() -> None:
    given = candidates(1, 2, 3, 4)
    assert ids(select(given, TopK(2), window=[(4.0, 6.0), (6.0, 8.0)])) == [0, 1]
    assert ids(select(given, TopK(4), window=[(5.0, 8.0)])) == [0, 1, 2]  # block 2 is only half inside


def test_mass_takes_one_clear_winner_and_many_equals() -> None:
    assert ids(select(candidates(0, 50, 0, 0), Mass(0.9))) == [1]
    assert len(select(candidates(*[1.0] * 20), Mass(0.9)).candidates) == 18
    assert len(select(candidates(*[1.0] * 20), Mass(0.9, most=5)).candidates) == 5
    assert len(select(candidates(0, 50, 0, 0), Mass(0.9, temperature=1000)).candidates) == 4


def test_nothing_comes_of_nothing() -> None:
    assert ids(select([], TopK(3))) == []
    assert runs(select([], Mass())) == ()


def test_neighbours_become_one_run_and_one_span() -> None:
    chosen = select(candidates(9, 9, 0, 9), TopK(3))
    assert [[c.block for c in run] for run in runs(chosen)] == [[0, 1], [3]]
    assert chosen.spans == ((0, 4), (6, 8))
    assert merged([(5, 6), (0, 2), (1, 3)]) == ((0, 3), (5, 6))
