"""From frames to blocks: which frames share a patch, what is counted, and how a source ends."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterable, Iterator

import numpy as np
import pytest
import torch
from families import overlapping, random_model
from perceiving import drained

from streamvlm.engine.perceiver import Block, Perceiver
from streamvlm.engine.signal import HandOver
from streamvlm.engine.tower import Tower
from streamvlm.errors import ModelError, SourceError
from streamvlm.models.base import VisionLanguageModel
from streamvlm.types import Frame


def frame(i: int, size: tuple[int, int] = (32, 32), gap: float = 0.0) -> Frame:
    return Frame(torch.zeros(3, *size, dtype=torch.uint8), i * 0.5, 0.5, gap=gap)


def perceiver_of(source: Iterable[Frame], model: VisionLanguageModel | None = None) -> Perceiver:
    model = model or random_model("qwen3_vl")
    return Perceiver(source, Tower(model), paced=False, queue_frames=4, on_block=lambda: None)


def perceive(source: Iterable[Frame], model: VisionLanguageModel | None = None) -> tuple[list[Block], Exception | None]:
    """All blocks, of two-frame patches where no model is given, and how the source ended."""
    perceiver = perceiver_of(source, model)
    perceiver.start()
    return drained(perceiver), perceiver.blocks.error


def spans(blocks: list[Block]) -> list[tuple[int, float, float, float]]:
    return [(b.frames, b.tokens.pts, b.last_pts, b.tokens.duration) for b in blocks]


def test_a_lone_last_frame_is_a_block_of_its_own() -> None:
    blocks, error = perceive([frame(i) for i in range(5)])
    assert spans(blocks) == [(2, 0.0, 0.5, 1.0), (2, 1.0, 1.5, 1.0), (1, 2.0, 2.0, 0.5)] and error is None


def test_frames_of_two_sizes_share_no_patch() -> None:
    sizes = [(32, 32)] * 3 + [(32, 64), (64, 32)]
    blocks, _ = perceive([frame(i, size) for i, size in enumerate(sizes)])
    assert [b.frames for b in blocks] == [2, 1, 1, 1]
    assert [b.last_pts for b in blocks] == [0.5, 1.0, 1.5, 2.0]


def test_patches_that_overlap_show_every_frame_after_the_one_before_it() -> None:
    """What came before a gap, or was of another size, is not shown; a frame with nothing before it is shown twice."""
    model, generator = overlapping(), torch.Generator().manual_seed(0)
    sizes, gaps = [(64, 64)] * 5 + [(64, 32)] * 2, {3: 5.0}
    shown = [torch.randint(0, 256, (3, *size), dtype=torch.uint8, generator=generator) for size in sizes]
    frames = [Frame(picture, float(i), 1.0, gap=gaps.get(i, 0.0)) for i, picture in enumerate(shown)]
    blocks, error = perceive(frames, model)
    assert error is None and [b.frames for b in blocks] == [1] * 7
    for block, (before, now) in zip(blocks, [(0, 0), (0, 1), (1, 2), (3, 3), (3, 4), (5, 5), (5, 6)], strict=True):
        (alone,) = model.encode(torch.stack((shown[before], shown[now])), [(float(now), 1.0)])
        assert (block.tokens.pts, block.last_pts) == (now, now)
        torch.testing.assert_close(block.tokens.embeds, alone.embeds)


def test_frames_across_a_gap_share_no_patch() -> None:
    blocks, _ = perceive([frame(0), frame(1), frame(2), frame(30, gap=13.0), frame(31)])
    assert spans(blocks) == [(2, 0.0, 0.5, 1.0), (1, 1.0, 1.0, 0.5), (2, 15.0, 15.5, 1.0)]
    assert [b.gap for b in blocks] == [0.0, 0.0, 13.0]


def test_frames_that_are_pushed_out_are_not_kept() -> None:
    queue: HandOver[Frame] = HandOver(2, lambda f: f.pts)
    pixels = []
    for i in range(5):
        new = frame(i)
        pixels.append(weakref.ref(new.data))
        queue.put_newest(new)
    del new
    gc.collect()
    assert [p() is None for p in pixels] == [True, True, True, False, False]
    kept, dropped = queue.take(5)
    assert [f.pts for f in kept] == [1.5, 2.0] and dropped == [0.0, 0.5, 1.0]


def test_a_frame_that_cannot_be_encoded_ends_the_stream_with_the_reason() -> None:
    _, error = perceive([frame(0, size=(1, 900))])
    assert isinstance(error, ModelError)
    assert "aspect ratio" in str(error)


def test_a_source_of_something_else_says_so() -> None:
    _, error = perceive([torch.zeros(3, 8, 8)])  # type: ignore[list-item]
    assert isinstance(error, SourceError)
    assert "yields Frame, not Tensor" in str(error)


@pytest.mark.parametrize("pixels", [torch.rand(3, 8, 8), np.zeros((3, 8, 8), np.uint8)], ids=["float", "array"])
def test_pixels_are_a_uint8_tensor(pixels: object) -> None:
    with pytest.raises(ValueError, match="must be a uint8 tensor, got"):
        Frame(pixels, 0.0, 0.5)  # type: ignore[arg-type]


def test_a_generator_is_closed_when_the_stream_is() -> None:
    closed = []

    def endless() -> Iterator[Frame]:
        try:
            while True:
                yield frame(0)
        finally:
            closed.append(True)

    perceiver = perceiver_of(endless())
    perceiver.start()
    perceiver.blocks.take(1)
    perceiver.stop()
    perceiver.join()
    assert closed


def test_a_source_that_cannot_be_closed_harms_nobody() -> None:
    class Stuck:
        def __iter__(self) -> Iterator[Frame]:
            return iter([frame(0)])

        def close(self) -> None:
            raise OSError("no")

    blocks, error = perceive(Stuck())
    assert len(blocks) == 1 and error is None
