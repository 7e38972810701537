"""From a name to a ready model: the embedded one, a local folder or a hub id."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from transformers import AutoModelForImageTextToText, AutoTokenizer, PreTrainedConfig
from transformers.utils import cached_file
from transformers.utils import logging as transformers_logging

from streamvlm.errors import ModelError
from streamvlm.models.attention import register_attention
from streamvlm.models.base import VisionLanguageModel
from streamvlm.models.chat import ChatFormat, chatml
from streamvlm.models.llava_onevision import LlavaOneVision
from streamvlm.models.qwen2_5_vl import Qwen25VL
from streamvlm.models.qwen3_vl import Qwen3VL
from streamvlm.settings import ModelConfig
from streamvlm.vision import PixelSpec

logger = logging.getLogger(__name__)

TINY_FOLDER = Path(__file__).parent / "tiny"
STREAM_PIXELS = 448 * 448  # per frame: what keeps a 7B model in step with 2 frames a second
RGB = tuple[float, float, float]
CLIP_MEAN, CLIP_STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
HALF = (0.5, 0.5, 0.5)


@dataclass(frozen=True, slots=True)
class Family:
    """How to build one family's adapter from its checkpoint."""

    adapter: Callable[[Any, Any, PixelSpec, ChatFormat], VisionLanguageModel]
    pixels: Callable[[Any, Mapping[str, Any]], PixelSpec]  # from config and preprocessor settings
    system_prompt: str | None
    example: str  # a checkpoint of the family
    notes: str


def _qwen_pixels(config: Any, settings: Mapping[str, Any], *, mean: RGB, std: RGB, per_frame: bool) -> PixelSpec:  # noqa: ANN401
    """`per_frame` is Qwen2.5-VL's sizing: a checkpoint's limits count one frame, not all frames of a video."""
    vision, size = config.vision_config, settings.get("size") or {}
    frames = vision.temporal_patch_size
    cap, unit = STREAM_PIXELS * frames, frames if per_frame else 1
    lowest = settings.get("min_pixels") or size.get("shortest_edge") or 56 * 56
    highest = settings.get("max_pixels") or size.get("longest_edge") or cap
    return PixelSpec(
        patch=vision.patch_size,
        merge=vision.spatial_merge_size,
        temporal=frames,
        mean=tuple(settings.get("image_mean") or mean),
        std=tuple(settings.get("image_std") or std),
        min_pixels=min(lowest * unit, cap),
        max_pixels=min(highest * unit, cap),
        overlap=settings.get("temporal_overlap", 0),
        enlarge=not per_frame,
    )


def _llava_pixels(config: Any, settings: Mapping[str, Any]) -> PixelSpec:  # noqa: ANN401
    side, patch = config.vision_config.image_size, config.vision_config.patch_size
    return PixelSpec(
        patch=patch,
        merge=1,
        temporal=1,
        mean=tuple(settings.get("image_mean") or HALF),
        std=tuple(settings.get("image_std") or HALF),
        min_pixels=side * side,
        max_pixels=side * side,
        fixed_size=(side, side),
    )


def families() -> dict[str, Family]:
    """The supported families by transformers' `model_type`."""
    qwen25 = partial(_qwen_pixels, mean=CLIP_MEAN, std=CLIP_STD, per_frame=True)
    qwen3 = partial(_qwen_pixels, mean=HALF, std=HALF, per_frame=False)
    helpful = "You are a helpful assistant."
    return {
        "qwen2_5_vl": Family(
            Qwen25VL, qwen25, helpful, "Qwen/Qwen2.5-VL-3B-Instruct", "sectioned M-RoPE, two frames a patch"
        ),
        "qwen3_vl": Family(
            Qwen3VL, qwen3, None, "Qwen/Qwen3-VL-2B-Instruct", "interleaved M-RoPE, deepstack, timestamps as text"
        ),
        "llava_onevision": Family(
            LlavaOneVision,
            _llava_pixels,
            None,
            "llava-hf/llava-onevision-qwen2-0.5b-ov-hf",
            "one position axis, 196 tokens a frame, no timestamps",
        ),
    }


def adapt(
    module: Any,  # noqa: ANN401
    tokenizer: Any,  # noqa: ANN401
    config: ModelConfig | None = None,
    settings: Mapping[str, Any] | None = None,
) -> VisionLanguageModel:
    """Wrap a loaded transformers model of a supported family; `settings` are its preprocessor's.

    Raises:
        ModelError: the family is not supported, or its text tower is spread over several devices.
    """
    config, known = config or ModelConfig(), families()
    kind = module.config.model_type
    if kind not in known:
        raise _unsupported(config, kind)
    family = known[kind]
    pixels = _override(family.pixels(module.config, settings or {}), config)
    chat = chatml(config.system_prompt if config.system_prompt is not None else family.system_prompt)
    model = family.adapter(module, tokenizer, pixels, chat)
    devices = {p.device for p in model.language_model.parameters()}
    if len(devices) > 1:
        places = ", ".join(sorted(map(str, devices)))
        raise ModelError(f"{config.model}: the text tower must be on one device, device_map put it on {places}")
    module.eval().requires_grad_(False)
    model.language_model.set_attn_implementation(register_attention())
    return model


def _is_path(name: str) -> bool:
    """Whether a name can only be a folder's: a hub id is `model` or `owner/model`."""
    return Path(name).is_absolute() or name.startswith((".", "~")) or name.count("/") > 1


def _unsupported(config: ModelConfig, kind: str | None) -> ModelError:
    return ModelError(f"{config.model}: model type {kind!r} is not supported; supported: {', '.join(families())}")


def _override(spec: PixelSpec, config: ModelConfig) -> PixelSpec:
    highest = (config.max_pixels or 0) * spec.temporal or spec.max_pixels
    lowest = (config.min_pixels or 0) * spec.temporal or min(spec.min_pixels, highest)
    if lowest > highest:
        raise ValueError(f"min_pixels={config.min_pixels} is more than max_pixels={highest // spec.temporal}")
    return replace(spec, min_pixels=lowest, max_pixels=highest)


def load_model(config: ModelConfig) -> VisionLanguageModel:
    """Load the model a user named.

    Raises:
        ModelError: it cannot be found or read, its family is not supported, or this machine lacks the device.
    """
    name = str(TINY_FOLDER) if config.model == "tiny" else config.model
    if _is_path(name) and not Path(name).is_dir():  # the hub would complain about the form of the name
        raise ModelError(f"{config.model}: there is no such folder")
    if (Path(name) / "adapter_config.json").is_file() and not (Path(name) / "config.json").is_file():
        raise ModelError(f"{config.model}: a LoRA adapter without the model it changes; give the merged model instead")
    device = choose_device(config)
    try:
        kind = PreTrainedConfig.get_config_dict(name)[0].get("model_type")
        if kind not in families():
            raise _unsupported(config, kind)
        tokenizer = AutoTokenizer.from_pretrained(name)
        place = {"device_map": config.device_map} if config.device_map else {}
        with _without_progress() if config.model == "tiny" else nullcontext():  # it loads in no time
            module = AutoModelForImageTextToText.from_pretrained(name, dtype=choose_dtype(config), **place)
    except (OSError, ValueError, KeyError, SafetensorError) as error:
        raise ModelError(f"{config.model}: cannot be loaded: {error}") from error
    if not config.device_map:
        module = module.to(device)
    model = adapt(module, tokenizer, config, _preprocessor_settings(name))
    logger.info("loaded %s (%s) on %s in %s", config.model, model.family, model.device, model.dtype)
    return model


@contextmanager
def _without_progress() -> Iterator[None]:
    shown = transformers_logging.is_progress_bar_enabled()
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            transformers_logging.enable_progress_bar()


def choose_device(config: ModelConfig) -> torch.device:
    """`auto` is CUDA, else Apple's MPS, else the CPU.

    Raises:
        ModelError: this machine, or this build of torch, does not have it.
    """
    if config.device != "auto":
        device = torch.device(config.device)
        count = {"cpu": 1, "cuda": torch.cuda.device_count(), "mps": int(torch.backends.mps.is_available())}
        if (device.index or 0) >= count[device.type]:
            raise ModelError(f"device {config.device} is not available; torch {torch.__version__} sees {count}")
        return device
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


def choose_dtype(config: ModelConfig) -> torch.dtype:
    """`auto` is bfloat16 on an accelerator, float32 on a CPU, whose matrix units rarely take less."""
    if config.dtype != "auto":
        dtype = getattr(torch, config.dtype)
        assert isinstance(dtype, torch.dtype)
        return dtype
    return torch.float32 if choose_device(config).type == "cpu" else torch.bfloat16


def _preprocessor_settings(name: str) -> dict[str, Any]:
    for file in ("video_preprocessor_config.json", "preprocessor_config.json"):
        path = cached_file(name, file, _raise_exceptions_for_missing_entries=False)
        if path is not None:
            settings: dict[str, Any] = json.loads(Path(path).read_text())
            return settings
    return {}
