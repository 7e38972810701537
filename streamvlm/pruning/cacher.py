"""STC-Cacher: rows of the vision tower that did not change keep what they gave before."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import nn

from streamvlm.errors import ModelError
from streamvlm.models.base import VisionLanguageModel
from streamvlm.pruning.dtd import EPSILON
from streamvlm.pruning.grafting import grafted
from streamvlm.pruning.protocols import FrameEncoder, Patch, StreamFacts
from streamvlm.pruning.reuse import Ledger, Memory, QwenAttention, ReusingMlp, SiglipAttention
from streamvlm.pruning.stage import Stateless
from streamvlm.types import VisionTokens

KEYS_SHARE = 1 / 12  # of a layer's operations, the key projection, which every row pays


@dataclass(frozen=True, slots=True)
class Cacher:
    """STC-Cacher (arXiv:2512.00891) with an adaptive threshold: in every layer, a row whose key is like the one it had
    when it was last computed keeps its attention and MLP outputs.

    A frame that changed in many places is computed in full, and so is one after `refresh` seconds. The published rule
    computes a fixed quarter whatever happened, `cacher(ratio=0.25)`: after a cut three quarters are of another scene.
    """

    name: ClassVar[str] = "cacher"
    paper: ClassVar[str] = "STC, arXiv:2512.00891"

    threshold: float = 0.99  # cosine of keys below which a row is computed again
    bypass: float = 0.4  # share of rows changed in the first layer from which the whole frame is computed
    refresh: float = 4.0  # seconds after which one is in any case
    ratio: float | None = None  # instead of a threshold: this share of the rows, in every layer

    def __post_init__(self) -> None:
        if not -1 <= self.threshold <= 1.01 or not 0 < self.bypass <= 1 or self.refresh <= 0:
            raise ValueError(f"cacher: threshold in [-1, 1.01], bypass in (0, 1], refresh above 0; got {self}")
        if self.ratio is not None and not 0 < self.ratio <= 1:
            raise ValueError(f"cacher: ratio must be in (0, 1], got {self.ratio}")

    def start(self, facts: StreamFacts) -> FrameEncoder:
        """The encoder of one stream.

        Raises:
            ModelError: the layers of the model's tower are of no kind that is known.
        """
        return _Cacher(self, facts.model)


class _Cacher(Stateless):
    def __init__(self, settings: Cacher, model: VisionLanguageModel) -> None:
        self._settings = settings
        self._original = model
        self._begin()

    def _begin(self) -> None:
        settings = self._settings
        self._ledger = Ledger(settings.threshold, settings.ratio, settings.bypass)
        self._model = reusing(self._original, self._ledger)
        self._whole_at: float | None = None  # seconds
        self._grid: tuple[int, int] | None = None

    def reset(self) -> None:
        """The next frame is computed in full."""
        self._whole_at = None

    @property
    def computed(self) -> float:
        """Share of the tower that the latest patch took."""
        if not self._ledger.rows:
            return 1.0
        return KEYS_SHARE + (1 - KEYS_SHARE) * self._ledger.computed / self._ledger.rows

    def encode(self, patch: Patch) -> VisionTokens:
        """All tokens; of places that did not change, as they were."""
        late = self._whole_at is None or patch.pts - self._whole_at >= self._settings.refresh - EPSILON
        self._ledger.begin(late or patch.grid != self._grid)
        tokens = self._model.encode(patch.frames, [(patch.pts, patch.duration)])[0]
        self._grid = patch.grid
        if self._ledger.whole:
            self._whole_at = patch.pts
        return tokens


def reusing(model: VisionLanguageModel, ledger: Ledger) -> VisionLanguageModel:
    """The same model, over the same weights, whose tower remembers one stream."""
    parts: dict[str, nn.Module] = {}
    for path, layer in _layers(model.module):
        memory = Memory(ledger, first=not parts)
        if hasattr(layer, "attn"):
            parts[f"{path}.attn"] = QwenAttention(layer.attn, memory)
        else:
            parts[f"{path}.self_attn"] = SiglipAttention(layer.self_attn, memory)
        parts[f"{path}.mlp"] = ReusingMlp(layer.mlp, memory)
    if not parts:
        raise ModelError(f"cacher: the tower of {model.family} has no layers of a kind it knows")
    own = copy.copy(model)
    own.module = grafted(model.module, parts)
    return own


def _layers(module: Any) -> list[tuple[str, Any]]:  # noqa: ANN401
    """Path and module of every layer of the vision tower, in order."""
    towers = {id(m): m for name in ("visual", "vision_tower") if (m := getattr(module.model, name, None)) is not None}
    inside = {id(m) for tower in towers.values() for m in tower.modules()}
    return [(path, m) for path, m in module.named_modules() if id(m) in inside and _is_layer(m)]


def _is_layer(module: Any) -> bool:  # noqa: ANN401
    qwen = hasattr(module, "mlp") and hasattr(getattr(module, "attn", None), "qkv")
    siglip = hasattr(module, "mlp") and hasattr(getattr(module, "self_attn", None), "k_proj")
    return qwen or siglip
