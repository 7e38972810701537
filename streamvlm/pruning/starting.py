"""From a stream's settings to its economy."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import cast

from streamvlm.models.base import VisionLanguageModel
from streamvlm.pruning.economy import Economy
from streamvlm.pruning.protocols import Method, StreamFacts
from streamvlm.pruning.spec import as_methods
from streamvlm.settings import WatchConfig


def horizon_of(config: WatchConfig) -> float:
    """Seconds after which a token has left the window; inf when nothing leaves."""
    match config.policy:
        case "full":
            return math.inf
        case "last_frames":
            return config.last_frames / config.fps
        case _:
            return config.window_seconds


def start_economy(model: VisionLanguageModel, config: WatchConfig) -> Economy | None:
    """The economy of one stream, or None where nothing is to be saved.

    Raises:
        ValueError: the composition is none, or does not fit the model.
    """
    methods = as_methods(cast("str | Sequence[Method] | None", config.prune))
    return Economy(methods, StreamFacts(model, config.fps, horizon_of(config))) if methods else None
