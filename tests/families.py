"""Tiny random models of the real transformers classes, one per family, float32, with a small real tokenizer."""

from __future__ import annotations

from copy import copy
from dataclasses import replace
from functools import lru_cache
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    LlavaOnevisionConfig,
    LlavaOnevisionForConditionalGeneration,
    PreTrainedTokenizerFast,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen3VLConfig,
    Qwen3VLForConditionalGeneration,
)

from streamvlm.models.base import VisionLanguageModel
from streamvlm.models.loading import adapt
from streamvlm.settings import ModelConfig

FAMILIES = ("qwen2_5_vl", "qwen3_vl", "llava_onevision")
SPECIAL = ("<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>", "<|video_pad|>", "<|image_pad|>")
ROPE = {"rope_type": "default", "rope_theta": 10000.0}


def byte_tokenizer() -> PreTrainedTokenizerFast:
    """One token per byte, plus the special tokens every family knows."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE({c: i for i, c in enumerate(alphabet)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token="<|im_end|>", additional_special_tokens=list(SPECIAL)
    )


def _text(tokenizer: PreTrainedTokenizerFast, **extra: Any) -> dict[str, Any]:
    return {
        "vocab_size": len(tokenizer),
        "hidden_size": 64,
        "intermediate_size": 96,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 32768,
        "use_sliding_window": False,
        "initializer_range": 0.12,
        "bos_token_id": None,
        "eos_token_id": tokenizer.eos_token_id,
        **extra,
    }


def _ids(tokenizer: PreTrainedTokenizerFast) -> dict[str, int]:
    of = tokenizer.convert_tokens_to_ids
    return {
        "vision_start_token_id": of("<|vision_start|>"),
        "vision_end_token_id": of("<|vision_end|>"),
        "video_token_id": of("<|video_pad|>"),
        "image_token_id": of("<|image_pad|>"),
    }


def _qwen2_5(tokenizer: PreTrainedTokenizerFast) -> Qwen2_5_VLForConditionalGeneration:
    config = Qwen2_5_VLConfig(
        text_config=_text(tokenizer, rope_parameters={**ROPE, "mrope_section": [2, 3, 3]}),
        vision_config={
            "depth": 2, "hidden_size": 32, "intermediate_size": 48, "num_heads": 2, "patch_size": 8,
            "spatial_merge_size": 2, "temporal_patch_size": 2, "out_hidden_size": 64, "window_size": 32,
            "fullatt_block_indexes": [1], "tokens_per_second": 2,
        },
        **_ids(tokenizer),
    )  # fmt: skip
    return Qwen2_5_VLForConditionalGeneration(config)


def _qwen3(tokenizer: PreTrainedTokenizerFast) -> Qwen3VLForConditionalGeneration:
    rope = {**ROPE, "mrope_section": [4, 2, 2], "mrope_interleaved": True}
    config = Qwen3VLConfig(
        text_config=_text(tokenizer, head_dim=16, rope_parameters=rope),
        vision_config={
            "depth": 3, "hidden_size": 32, "intermediate_size": 48, "num_heads": 2, "patch_size": 8,
            "spatial_merge_size": 2, "temporal_patch_size": 2, "out_hidden_size": 64,
            "deepstack_visual_indexes": [0, 1], "num_position_embeddings": 64,
        },
        **_ids(tokenizer),
    )  # fmt: skip
    return Qwen3VLForConditionalGeneration(config)


def _llava(tokenizer: PreTrainedTokenizerFast) -> LlavaOnevisionForConditionalGeneration:
    of = tokenizer.convert_tokens_to_ids
    config = LlavaOnevisionConfig(
        text_config={"model_type": "qwen2", **_text(tokenizer, rope_parameters=ROPE)},
        vision_config={
            "model_type": "siglip_vision_model", "hidden_size": 32, "intermediate_size": 48,
            "num_hidden_layers": 2, "num_attention_heads": 2, "image_size": 48, "patch_size": 8,
            "vision_use_head": False,
        },
        video_token_id=of("<|video_pad|>"),
        image_token_id=of("<|image_pad|>"),
        video_token_index=of("<|video_pad|>"),
        image_token_index=of("<|image_pad|>"),
    )  # fmt: skip
    return LlavaOnevisionForConditionalGeneration(config)


@lru_cache(maxsize=len(FAMILIES))
def random_model(family: str) -> VisionLanguageModel:
    """A random model of `family`; the same weights at every call."""
    torch.manual_seed(7)
    tokenizer = byte_tokenizer()
    module = {"qwen2_5_vl": _qwen2_5, "qwen3_vl": _qwen3, "llava_onevision": _llava}[family](tokenizer)
    with torch.no_grad():
        for name, parameter in module.named_parameters():  # biases and norms off their trivial initial values
            if parameter.ndim == 1 and "norm" not in name:
                parameter.normal_(0, 0.1)
    return adapt(module.float(), tokenizer, ModelConfig(min_pixels=1024, max_pixels=4096))


def overlapping() -> VisionLanguageModel:
    """A random Qwen3-VL that sees every frame together with the one before it, as the embedded model does."""
    model = copy(random_model("qwen3_vl"))
    model.pixels = replace(model.pixels, overlap=1)
    return model
