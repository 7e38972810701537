"""Whisper through transformers (arXiv 2212.04356). The only file of the benchmarks that imports it."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import AutoTokenizer, WhisperFeatureExtractor, WhisperForConditionalGeneration

from streamvlm import ModelError
from streamvlm.benchmarks.core.audio import RATE


class Whisper:
    """A checkpoint, as something that transcribes up to half a minute of sound."""

    def __init__(self, model: str, device: str = "auto") -> None:
        """`model` is a hub id or a folder.

        Raises:
            ModelError: it cannot be loaded.
        """
        wanted = ("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device
        try:
            self._extractor = WhisperFeatureExtractor.from_pretrained(model)
            self._tokenizer: Any = AutoTokenizer.from_pretrained(model)
            self._model: Any = WhisperForConditionalGeneration.from_pretrained(model).to(wanted).eval()
        except (OSError, ValueError) as error:
            raise ModelError(f"{model} cannot be loaded as Whisper: {error}") from error

    @torch.inference_mode()
    def __call__(self, sound: NDArray[np.float32]) -> str:
        """The words of mono sound at 16 kHz."""
        features = self._extractor(sound, sampling_rate=RATE, return_tensors="pt").input_features
        ids = self._model.generate(features.to(self._model.device, self._model.dtype), do_sample=False)
        return str(self._tokenizer.decode(ids[0], skip_special_tokens=True))
