"""The embedded model's shape: a real Qwen3-VL, about five million parameters."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import AutoTokenizer, GenerationConfig, Qwen3VLConfig, Qwen3VLForConditionalGeneration

from streamvlm.models.chat import chatml
from streamvlm.models.qwen3_vl import Qwen3VL
from streamvlm.settings import Live
from streamvlm.train.vocabulary import save_tokenizer
from streamvlm.vision import PixelSpec

FRAME_SIDE = 64  # pixels, what every frame is resized to
PIXELS = PixelSpec(
    patch=8,
    merge=2,
    temporal=2,
    overlap=1,  # every frame is seen together with the one before it: what changes is seen by the vision tower
    mean=(0.5, 0.5, 0.5),
    std=(0.5, 0.5, 0.5),
    min_pixels=2 * FRAME_SIDE**2,
    max_pixels=2 * FRAME_SIDE**2,
)
GRID = (4, 4)  # merged tokens of a frame


@dataclass(frozen=True, slots=True)
class Shape:
    """Sizes that a training config may change."""

    vision_depth: int = 4
    vision_hidden: int = 128
    text_layers: int = 6
    text_hidden: int = 192
    text_intermediate: int = 512
    heads: int = 4
    kv_heads: int = 2
    head_dim: int = 64

    def __post_init__(self) -> None:
        if self.head_dim % 8 or self.heads % self.kv_heads:
            raise ValueError(f"head_dim must divide by 8 and heads by kv_heads, got {self}")
        if self.vision_depth < 2:
            raise ValueError(f"deepstack needs a vision tower of at least 2 layers, got {self.vision_depth}")


def _config(shape: Shape, tokenizer: Any) -> Any:  # noqa: ANN401
    pairs = shape.head_dim // 2
    width = pairs // 3
    ids = tokenizer.convert_tokens_to_ids
    vision = {
        "depth": shape.vision_depth,
        "hidden_size": shape.vision_hidden,
        "intermediate_size": 4 * shape.vision_hidden,
        "num_heads": shape.vision_hidden // 32,
        "patch_size": PIXELS.patch,
        "spatial_merge_size": PIXELS.merge,
        "temporal_patch_size": PIXELS.temporal,
        "out_hidden_size": shape.text_hidden,
        "num_position_embeddings": (FRAME_SIDE // PIXELS.patch) ** 2,
        "deepstack_visual_indexes": [shape.vision_depth // 2],
    }
    text = {
        "vocab_size": len(tokenizer),
        "hidden_size": shape.text_hidden,
        "intermediate_size": shape.text_intermediate,
        "num_hidden_layers": shape.text_layers,
        "num_attention_heads": shape.heads,
        "num_key_value_heads": shape.kv_heads,
        "head_dim": shape.head_dim,
        "max_position_embeddings": 32768,
        "tie_word_embeddings": True,
        "pad_token_id": tokenizer.pad_token_id,
        "rope_parameters": {
            "rope_type": "default",
            "rope_theta": 10000.0,
            "mrope_section": [pairs - 2 * width, width, width],
            "mrope_interleaved": True,
        },
    }
    return Qwen3VLConfig(
        text_config=text,
        vision_config=vision,
        image_token_id=ids("<|image_pad|>"),
        video_token_id=ids("<|video_pad|>"),
        vision_start_token_id=ids("<|vision_start|>"),
        vision_end_token_id=ids("<|vision_end|>"),
        tie_word_embeddings=True,
        streamvlm_watches=["reply", "commentary"],  # it learns both (streamvlm/engine/triggers/usual.py)
    )


def new_model(shape: Shape, seed: int, folder: Path) -> Qwen3VL:
    """Random weights; the tokenizer is the one in `folder`, where it is made if there is none."""
    if not (folder / "tokenizer.json").exists():
        save_tokenizer(folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    torch.manual_seed(seed)
    return Qwen3VL(Qwen3VLForConditionalGeneration(_config(shape, tokenizer)), tokenizer, PIXELS, chatml(None))


def load_model(folder: Path) -> Qwen3VL:
    """A saved model as the adapter that trains and serves it, in float32."""
    module = Qwen3VLForConditionalGeneration.from_pretrained(folder, dtype=torch.float32)
    return Qwen3VL(module, AutoTokenizer.from_pretrained(folder), PIXELS, chatml(None))


def export(model: Qwen3VL, folder: Path, live: Sequence[Live] = ()) -> None:
    """Write a folder that `from_pretrained` and `--model` accept.

    `live` are the schemes of live answers it was trained for, beside those its config names already.
    """
    folder.mkdir(parents=True, exist_ok=True)
    known = tuple(getattr(model.module.config, "streamvlm_live", ()))
    if not set(live) <= set(known):
        model.module.config.streamvlm_live = [*known, *(scheme for scheme in live if scheme not in known)]
    model.module.generation_config = GenerationConfig(
        eos_token_id=model.tokenizer.eos_token_id, pad_token_id=model.tokenizer.pad_token_id
    )
    model.module.save_pretrained(folder)
    model.tokenizer.save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(json.dumps(_preprocessor(), indent=2) + "\n")


def _preprocessor() -> dict[str, Any]:
    return {
        "image_processor_type": "Qwen2VLImageProcessor",
        "processor_class": "Qwen3VLProcessor",
        "patch_size": PIXELS.patch,
        "temporal_patch_size": PIXELS.temporal,
        "temporal_overlap": PIXELS.overlap,
        "merge_size": PIXELS.merge,
        "image_mean": list(PIXELS.mean),
        "image_std": list(PIXELS.std),
        "size": {"shortest_edge": PIXELS.min_pixels, "longest_edge": PIXELS.max_pixels},
    }
