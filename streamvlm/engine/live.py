"""Live answers: those that see the frames which arrive while they are written, and where their rows stand.

Perception has its positions whatever is written, so a scheme only says where an answer's rows go among them
(Speak-While-Watching, arXiv 2601.06843). A model must have been trained for a scheme: its config names those it knows
in `streamvlm_live`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from streamvlm.memory.window import Window
from streamvlm.models.base import VisionLanguageModel
from streamvlm.settings import Live, WatchConfig

if TYPE_CHECKING:
    from streamvlm.engine.reader import Reader

GAP = 10_000  # positions between the first row that an answer sees and its own, under gap_isolated (the paper's)
# Where text begins, past the first row it sees; None: after the last one.
ORIGINS: dict[Live, int | None] = {"overlapped": None, "group_decoupled": 0, "gap_isolated": GAP}


def check_live(model: VisionLanguageModel, config: WatchConfig) -> None:
    """Raise ValueError if a stream's answers are to be live in a way that the model or the policy does not allow."""
    if config.live == "snapshot":
        return
    if config.policy in ("last_frames", "sliding_recompute"):
        raise ValueError(f"live={config.live} needs frames that stay where they are; policy={config.policy} moves them")
    if config.store is not None:
        raise ValueError(f"live={config.live} has no place for what a store brings back; leave store out")
    known = tuple(getattr(model.module.config, "streamvlm_live", ()))
    if config.live not in known and not config.live_anyway:
        trained = f"for {', '.join(known)}" if known else "for none"
        raise ValueError(
            f"live={config.live} needs a model trained for it, and this one was trained {trained}; "
            "live_anyway lets it try"
        )


def begin(reader: Reader, window: Window, scheme: Live) -> None:
    """Make a reader that has written nothing yet live."""
    reader.live = scheme
    origin = ORIGINS.get(scheme)
    if origin is not None:
        window.decouple(reader.handle, origin)


def follow(reader: Reader, window: Window) -> None:
    """Show it what has been committed before its next token."""
    window.follow(reader.handle, together=reader.live == "overlapped")
