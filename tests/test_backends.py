"""Which attention a step gets."""

from __future__ import annotations

import pytest
from driver import Driver, perceived, random_blocks
from families import random_model
from torch.testing import assert_close

from streamvlm.models.attention import Backend
from streamvlm.models.backends import BackendTable, Shape, fixed, layer_seconds, measured
from streamvlm.models.base import VisionLanguageModel

MODEL = random_model("qwen3_vl")
SHAPES: tuple[Shape, ...] = ((4, 512), (4, 4096), (64, 512), (64, 4096))


def pretend(model: VisionLanguageModel, backend: Backend, shape: Shape) -> float:
    """Flex starts slowly and is better at much."""
    rows, slots = shape
    return 1e-3 + 1e-9 * rows * slots if backend == "flex" else 1e-8 * rows * slots


@pytest.mark.parametrize(
    ("rows", "slots", "backend"),
    [
        (1, 100, "sdpa"),
        (4, 4096, "sdpa"),
        (60, 500, "sdpa"),
        (5, 513, "flex"),
        (64, 4096, "flex"),
        (900, 90000, "flex"),
    ],
)
def test_the_faster_one_is_taken_for_every_shape(rows: int, slots: int, backend: Backend) -> None:
    assert measured(MODEL, SHAPES, pretend).choose(rows, slots) == backend


def test_what_cannot_be_computed_is_not_chosen() -> None:
    def broken(model: VisionLanguageModel, backend: Backend, shape: Shape) -> float:
        if backend == "flex" and shape[1] > 512:
            raise RuntimeError("out of memory")
        return 0.0 if backend == "flex" else 1.0

    table = measured(MODEL, SHAPES, broken)
    assert table.choose(4, 500) == "flex"

    def nothing(model: VisionLanguageModel, backend: Backend, shape: Shape) -> float:
        raise RuntimeError("no kernel")

    assert measured(MODEL, SHAPES, nothing).choose(4, 500) == "sdpa"
    with pytest.raises(ValueError, match="at least one backend"):
        BackendTable({})


def test_a_cpu_measures_nothing_and_measuring_works() -> None:
    assert measured(MODEL).seconds == fixed("sdpa").seconds
    assert 0 < layer_seconds(MODEL, "sdpa", (4, 64)) < 10


def test_a_stream_is_the_same_whatever_is_chosen_on_its_way() -> None:
    """Here frames go through one backend and answers through the other."""
    blocks = random_blocks(MODEL, 5)
    mixed = BackendTable({"sdpa": {(2, 10_000): 0.0, (99, 10_000): 1.0}, "flex": {(2, 10_000): 1.0, (99, 10_000): 0.0}})
    said = []
    for backends in (fixed("sdpa"), mixed):
        driver = Driver(MODEL)
        driver.engine.backends = backends
        stream = driver.watch(blocks)
        driver.step(3)
        answer = driver.ask(stream, "what?", max_new_tokens=6)
        driver.run()
        said.append((answer.so_far, perceived(stream)))
    assert said[0][0] == said[1][0]
    for ours, theirs in zip(said[0][1], said[1][1], strict=True):
        assert_close(ours, theirs, atol=1e-5, rtol=0)
