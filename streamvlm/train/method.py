"""What of a real checkpoint is trained, full or LoRA, and how it is saved for `--model`."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor
from transformers.utils import cached_file

from streamvlm.errors import TrainingError
from streamvlm.models.base import VisionLanguageModel

# The linear layers of a text tower's blocks, by what Qwen2, Qwen2.5 and Qwen3 call them.
_TARGETS = r".*language_model\..*\.(q_proj|k_proj|v_proj|o_proj|gate_proj|up_proj|down_proj)"
_PIXELS = "video_preprocessor_config.json"  # what the loader reads first
_BESIDE = ("preprocessor_config.json", "processor_config.json", "chat_template.jinja")


@dataclass(frozen=True, slots=True)
class Method:
    """Which weights learn, and how."""

    kind: str = "lora"  # or full
    train_vision: bool = False  # the vision tower and its projector learn too (always in full)
    gradient_checkpointing: bool = False  # compute the forward pass twice to hold less of it in memory
    rank: int = 16  # of LoRA, as are the next two (arXiv 2106.09685)
    alpha: float = 32.0
    dropout: float = 0.0

    def __post_init__(self) -> None:
        if self.kind not in ("lora", "full"):
            raise ValueError(f"kind={self.kind!r} is not one of lora, full")
        if self.rank < 1 or self.alpha <= 0 or not 0 <= self.dropout < 1:
            raise ValueError(f"need rank >= 1, alpha > 0 and 0 <= dropout < 1, got {self}")


class Prepared:
    """A model whose weights are set to learn by a method."""

    def __init__(self, model: VisionLanguageModel, method: Method) -> None:
        self.model = model
        self.method = method
        text = {id(p) for part in _text_parts(model) for p in part.parameters()}
        vision = [p for p in model.module.parameters() if id(p) not in text]
        self._peft = _with_lora(model.module, method) if method.kind == "lora" else None
        if self._peft is None:
            for part in _text_parts(model):
                part.requires_grad_(True)
        for parameter in vision:
            parameter.requires_grad_(method.train_vision)
        if method.gradient_checkpointing:
            newer = getattr(model.module, "activation_checkpointing_enable", None)  # what newer transformers call it
            (newer or model.module.gradient_checkpointing_enable)({"use_reentrant": False})

    def export(self, folder: Path, origin: str) -> None:
        """A folder that `--model` accepts; with LoRA, merged, and the adapter alone beside it in `adapter/`.

        `origin` is the checkpoint training began from, whose settings for pictures are kept.
        """
        folder.mkdir(parents=True, exist_ok=True)
        if self._peft is None:
            self.model.module.save_pretrained(folder)
        else:
            if not self.method.train_vision:  # an adapter cannot hold the tower
                self._peft.save_pretrained(folder.parent / "adapter")
            self.model.module.save_pretrained(folder, state_dict=merged_state(self.model.module))
        self.model.tokenizer.save_pretrained(folder)
        for name in _BESIDE:
            path = _file_of(origin, name)
            if path is not None:
                shutil.copy(path, folder / name)
        (folder / _PIXELS).write_text(json.dumps(_pixel_settings(self.model, origin), indent=2) + "\n")


def merged_state(module: Any) -> dict[str, Tensor]:  # noqa: ANN401
    """The weights of a module with its adapters added in, under the names it had before there were any.

    The module is left as it is: adding and subtracting again would round.
    """
    state = {
        name.replace(".base_layer.", "."): weight
        for name, weight in module.state_dict().items()
        if ".lora_" not in name
    }
    for name, layer in module.named_modules():
        if hasattr(layer, "get_delta_weight"):
            base = layer.get_base_layer().weight.detach()
            delta = sum(layer.get_delta_weight(adapter).detach().float() for adapter in layer.active_adapters)
            state[f"{name}.weight"] = (base.float() + delta).to(base.dtype).cpu()
    return state


def _text_parts(model: VisionLanguageModel) -> list[Any]:
    return [model.language_model, model.module.get_output_embeddings()]


def _with_lora(module: Any, method: Method) -> Any:  # noqa: ANN401
    try:
        from peft import LoraConfig, get_peft_model
    except ImportError:
        raise TrainingError("LoRA needs peft: pip install 'streamvlm[train]'") from None
    config = LoraConfig(
        r=method.rank, lora_alpha=method.alpha, lora_dropout=method.dropout, target_modules=_TARGETS, bias="none"
    )
    return get_peft_model(module, config)  # puts its layers into the module, which stays what it was otherwise


def _file_of(origin: str, name: str) -> Path | None:
    """A file of a checkpoint, which is a folder or a hub id."""
    found = cached_file(origin, name, _raise_exceptions_for_missing_entries=False)
    return None if found is None else Path(found)


def _pixel_settings(model: VisionLanguageModel, origin: str) -> dict[str, Any]:
    """The settings that make the loader show the model pictures of the sizes it was trained on."""
    before = _file_of(origin, _PIXELS) or _file_of(origin, "preprocessor_config.json")
    settings = {} if before is None else json.loads(before.read_text())
    pixels = model.pixels
    unit = 1 if pixels.enlarge else pixels.temporal  # Qwen2.5-VL counts the pixels of one frame, not of a patch
    sizes = {"min_pixels": pixels.min_pixels // unit, "max_pixels": pixels.max_pixels // unit}
    if pixels.fixed_size is not None:
        sizes = {}
    return {**settings, **sizes, "image_mean": list(pixels.mean), "image_std": list(pixels.std)}
