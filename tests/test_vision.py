"""Our pixels against the official processors that run without torchvision."""

from __future__ import annotations

from dataclasses import replace

import PIL
import pytest
import torch
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from PIL import Image
from torch import Tensor
from torch.testing import assert_close
from transformers.models.llava_onevision.image_processing_pil_llava_onevision import LlavaOnevisionImageProcessorPil
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import smart_resize as qwen2_smart_resize
from transformers.models.qwen3_vl.video_processing_qwen3_vl import smart_resize as qwen3_smart_resize

from streamvlm.models.loading import CLIP_MEAN, CLIP_STD, HALF
from streamvlm.vision import PixelSpec, normalise, patchify, resize, smart_resize

QWEN2_5 = PixelSpec(14, 2, 2, CLIP_MEAN, CLIP_STD, 2 * 56 * 56, 2 * 300 * 300, enlarge=False)
QWEN3 = PixelSpec(16, 2, 2, HALF, HALF, 2 * 64 * 64, 2 * 320 * 320)
LLAVA = PixelSpec(14, 1, 1, HALF, HALF, 384 * 384, 384 * 384, fixed_size=(384, 384))
SIZES = [(240, 320), (477, 123), (90, 90), (61, 640), (15, 40), (720, 1280)]

# Pillow 13 does the cheaper axis first, Pillow 12 (all that gradio allows) and we the width: rounding in between
# then shows.
width_first = pytest.mark.skipif(int(PIL.__version__.split(".")[0]) >= 13, reason="Pillow 13 orders the axes by cost")

sides = st.one_of(st.integers(1, 64), st.integers(1, 5000))
factors = st.sampled_from([16, 28, 32])
budgets = st.tuples(st.integers(1, 100_000), st.integers(1, 4_000_000)).filter(lambda b: b[0] <= b[1])


def noise(n: int, height: int, width: int, seed: int = 0) -> Tensor:
    """uint8 [n, 3, height, width]: blocks and noise, so that both edges and texture are there."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.randint(0, 256, (n, 3, 1 + height // 16, 1 + width // 16), generator=generator)
    blocks = coarse.repeat_interleave(16, 2).repeat_interleave(16, 3)[:, :, :height, :width]
    fine = torch.randint(-40, 41, blocks.shape, generator=generator)
    return (blocks + fine).clamp(0, 255).to(torch.uint8)


def pillow_resize(frame: Tensor, rows: int, columns: int) -> Tensor:
    """Width first, then height, each rounded to bytes, whatever order this Pillow would choose."""
    picture = Image.fromarray(frame.permute(1, 2, 0).contiguous().numpy())
    for size in ((columns, picture.height), (columns, rows)):
        picture = picture.resize(size, Image.Resampling.BICUBIC)
    return torch.frombuffer(bytearray(picture.tobytes()), dtype=torch.uint8).view(rows, columns, 3).permute(2, 0, 1)


def official_patches(frame: Tensor, spec: PixelSpec, *, do_resize: bool = True) -> Tensor:
    """One frame [3, H, W] through the official Qwen-VL processor, which shows it `temporal` times."""
    processor = Qwen2VLImageProcessorPil(
        patch_size=spec.patch,
        merge_size=spec.merge,
        temporal_patch_size=spec.temporal,
        image_mean=list(spec.mean),
        image_std=list(spec.std),
        size={"shortest_edge": spec.min_pixels // spec.temporal, "longest_edge": spec.max_pixels // spec.temporal},
        do_resize=do_resize,
    )
    patches: Tensor = processor(images=[frame.numpy()], return_tensors="pt", input_data_format="channels_first")[
        "pixel_values"
    ]
    return patches


def our_patches(frames: Tensor, spec: PixelSpec) -> Tensor:
    size = spec.target_size(frames.shape[2], frames.shape[3])
    return patchify(normalise(resize(frames, size), spec), spec)


@width_first
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("spec", [QWEN2_5, replace(QWEN3, enlarge=False)], ids=["qwen2.5", "qwen3"])
def test_qwen_patches_equal_the_official_processor(spec: PixelSpec, size: tuple[int, int]) -> None:
    frame = noise(1, *size)
    assert_close(our_patches(frame.expand(2, -1, -1, -1), spec), official_patches(frame[0], spec), atol=1e-5, rtol=0)


@pytest.mark.parametrize("spec", [QWEN2_5, QWEN3], ids=["qwen2.5", "qwen3"])
def test_without_resizing_patches_equal_the_official_processor(spec: PixelSpec) -> None:
    frame = noise(1, 4 * spec.factor, 7 * spec.factor)
    ours = patchify(normalise(frame.expand(2, -1, -1, -1), spec), spec)
    assert_close(ours, official_patches(frame[0], spec, do_resize=False), atol=1e-6, rtol=0)


@width_first
@pytest.mark.parametrize("size", [*SIZES, (384, 384), (1, 200)])
def test_llava_pixels_equal_the_official_processor(size: tuple[int, int]) -> None:
    frame = noise(1, *size)
    processor = LlavaOnevisionImageProcessorPil(
        image_mean=list(HALF), image_std=list(HALF), image_grid_pinpoints=[[384, 384]]
    )
    crops = processor(images=[frame[0].numpy()], return_tensors="pt", input_data_format="channels_first")
    ours = normalise(resize(frame, LLAVA.target_size(*size)), LLAVA)[0]
    assert_close(ours, crops["pixel_values"][0, 0], atol=1e-6, rtol=0)  # the first crop is the whole picture


@width_first
def test_a_video_patch_holds_its_frames_one_after_the_other() -> None:
    """Row by row, channel by channel: what the official processors do with a video's temporal patches."""
    frames = noise(6, 130, 170)
    ours = our_patches(frames, QWEN2_5)
    stills = [official_patches(f, QWEN2_5).view(-1, 3, 2, 14 * 14)[:, :, 0] for f in frames]
    patches = [torch.stack((a, b), dim=2).flatten(1) for a, b in zip(stills[::2], stills[1::2], strict=True)]
    assert_close(ours, torch.cat(patches), atol=1e-5, rtol=0)


def official_size(rule: str, height: int, width: int, factor: int, budget: tuple[int, int]) -> tuple[int, int] | None:
    """What the official rule says; None where it refuses."""
    lowest, highest = budget
    try:
        if rule == "qwen2":
            return qwen2_smart_resize(height, width, factor, lowest, highest)  # type: ignore[no-any-return]
        return qwen3_smart_resize(2, height, width, 2, factor, lowest, highest)  # type: ignore[no-any-return]
    except ValueError:
        return None


@pytest.mark.parametrize("rule", ["qwen2", "qwen3"])
@settings(max_examples=400, deadline=None)
@given(height=sides, width=sides, factor=factors, budget=budgets)
@example(height=27, width=5400, factor=28, budget=(1, 4_000_000))  # 200:1 before it is enlarged
@example(height=1, width=1, factor=32, budget=(1, 1))
def test_sizing_is_the_official_rule(rule: str, height: int, width: int, factor: int, budget: tuple[int, int]) -> None:
    frames = 1 if rule == "qwen2" else 2
    spec = PixelSpec(factor // 2, 2, frames, HALF, HALF, *budget, enlarge=rule == "qwen3")
    expected = official_size(rule, height, width, factor, budget)
    if expected is None:
        with pytest.raises(ValueError, match=f"200.*{height}x{width}"):
            smart_resize(height, width, spec)
        return
    assert smart_resize(height, width, spec) == expected
    assert spec.merged_grid(height, width) == (expected[0] // factor, expected[1] // factor)


@settings(max_examples=100, deadline=None)
@given(height=sides, width=sides, budget=budgets)
def test_a_budget_per_frame_is_twice_that_for_two(height: int, width: int, budget: tuple[int, int]) -> None:
    """Qwen2.5-VL counts the pixels of one frame, we count those of a temporal patch."""
    lowest, highest = budget
    expected = official_size("qwen2", height, width, 28, budget)
    assume(expected is not None)
    spec = PixelSpec(14, 2, 2, HALF, HALF, 2 * lowest, 2 * highest, enlarge=False)
    assert smart_resize(height, width, spec) == expected


@settings(max_examples=60, deadline=None)
@given(*[st.integers(1, 160)] * 4, st.integers(0, 2**31))
@example(1, 1, 64, 64, 0)
@example(160, 1, 1, 160, 0)
def test_resize_is_pillows_to_the_bit(height: int, width: int, rows: int, columns: int, seed: int) -> None:
    frame = noise(1, height, width, seed)
    assert torch.equal(resize(frame, (rows, columns))[0], pillow_resize(frame[0], rows, columns))


def test_a_full_hd_frame_is_resized_like_pillow() -> None:
    frame = noise(1, 1080, 1920)
    assert torch.equal(resize(frame, (252, 448))[0], pillow_resize(frame[0], 252, 448))


def test_a_frame_of_the_right_size_is_left_alone() -> None:
    frame = noise(2, 56, 84)
    assert torch.equal(resize(frame, (56, 84)), frame)


def test_a_batch_equals_its_frames_one_by_one() -> None:
    frames = noise(6, 100, 150)
    together = our_patches(frames, QWEN3).view(3, -1, 3 * 2 * 16 * 16)
    for i, patch in enumerate(together):
        assert torch.equal(our_patches(frames[2 * i : 2 * i + 2], QWEN3), patch)


@pytest.mark.parametrize("size", [(0, 10), (10, 0), (-1, 10)])
def test_a_frame_without_pixels_is_refused(size: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match=f"positive.*{size[0]}x{size[1]}"):
        smart_resize(*size, QWEN3)


@pytest.mark.parametrize("spec", [QWEN2_5, QWEN3], ids=["qwen2.5", "qwen3"])
def test_extreme_frames_stay_within_the_budget(spec: PixelSpec) -> None:
    for size in [(1, 1), (1, 200), (200, 1), (30, 6000), (16384, 16384)]:
        rows, columns = spec.target_size(*size)
        assert rows % spec.factor == 0 and columns % spec.factor == 0 and min(rows, columns) > 0
        long_strip = spec.factor * max(rows, columns)  # one token high: cannot be made thinner
        assert spec.temporal * rows * columns <= max(spec.max_pixels, spec.temporal * long_strip)
