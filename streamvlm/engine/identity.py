"""Whose keys and values a store holds: the fingerprint of a model and its settings."""

from __future__ import annotations

import hashlib
import json

from streamvlm.memory.fingerprint import Fingerprint
from streamvlm.models.base import VisionLanguageModel
from streamvlm.settings import WatchConfig


def sampled_hash(model: VisionLanguageModel) -> str:
    """A hash that changes with the weights: every parameter's name, shape and 64 of its values."""
    digest = hashlib.sha256()
    for name, parameter in model.language_model.named_parameters():
        flat = parameter.detach().flatten()
        digest.update(f"{name}{tuple(parameter.shape)}".encode())
        digest.update(flat[:: max(1, len(flat) // 64)].float().cpu().numpy().tobytes())
    return digest.hexdigest()


def fingerprint_of(model: VisionLanguageModel, config: WatchConfig) -> Fingerprint:
    """What stored keys and values of this model depend on."""
    text = model.module.config.get_text_config().to_dict()
    prefix = model.prefix_layout().ids.tolist()
    return Fingerprint(
        model=model.family,
        weights=sampled_hash(model),
        config=hashlib.sha256(json.dumps(text, sort_keys=True, default=str).encode()).hexdigest(),
        dtype=str(model.dtype),
        codec=config.store_codec,
        rope=json.dumps(text.get("rope_parameters"), sort_keys=True, default=str),
        prompt=hashlib.sha256(json.dumps(prefix).encode()).hexdigest(),
    )
