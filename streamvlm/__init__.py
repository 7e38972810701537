"""Watch an endless video stream with a vision-language model, in bounded memory, and answer while watching."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from streamvlm.agent import Agent
    from streamvlm.engine.alarm import Rule
    from streamvlm.engine.answer import Answer
    from streamvlm.engine.baselines import Schedule
    from streamvlm.engine.events import (
        AnswerDone,
        AnswerPiece,
        AnswerStarted,
        FramePerceived,
        FramesDropped,
        Gap,
        LoadChanged,
        Narrated,
        NoteTaken,
        RationChanged,
        StreamEnded,
        StreamEvent,
        StreamStats,
        WatchFired,
    )
    from streamvlm.engine.evidence import Moment, RecallCost
    from streamvlm.engine.precision import CodecErrors, codec_errors
    from streamvlm.engine.tower import TowerStats
    from streamvlm.engine.triggers.base import Evidence, Trigger
    from streamvlm.engine.triggers.commentary import Commentary
    from streamvlm.engine.triggers.drop_ratio import DropRatio
    from streamvlm.engine.triggers.heads import Heads
    from streamvlm.engine.triggers.probe import Probe
    from streamvlm.engine.triggers.reply import Reply
    from streamvlm.engine.triggers.silence import Silence
    from streamvlm.engine.virtual import H200_8B, Hardware, Simulation
    from streamvlm.engine.watches import Watch
    from streamvlm.errors import (
        BudgetError,
        BusyError,
        CorruptError,
        FingerprintError,
        ModelError,
        ReaderCancelled,
        SourceError,
        StoreError,
        StreamClosed,
        StreamVLMError,
    )
    from streamvlm.memory.blocks import BlockShape, KVBlock
    from streamvlm.memory.catalogue import Entry
    from streamvlm.memory.export import export_blocks, import_blocks
    from streamvlm.memory.fingerprint import Fingerprint
    from streamvlm.memory.log import StoreOptions
    from streamvlm.memory.notes import Note, Notes
    from streamvlm.memory.recovery import rebuild_catalogue
    from streamvlm.memory.store import BlockStore
    from streamvlm.models.loading import families, load_model
    from streamvlm.pruning.savings import Savings
    from streamvlm.pruning.spec import format_prune, parse_prune, prune_methods
    from streamvlm.retrieval.external import Embedder
    from streamvlm.settings import ModelConfig, SamplingConfig, WatchConfig
    from streamvlm.source import SourceOptions, open_source
    from streamvlm.stream import Stream
    from streamvlm.tracing import chrome_trace, read_trace, summarise_trace
    from streamvlm.types import Frame
    from streamvlm.version import __version__

__all__ = [
    "H200_8B",
    "Agent",
    "Answer",
    "AnswerDone",
    "AnswerPiece",
    "AnswerStarted",
    "BlockShape",
    "BlockStore",
    "BudgetError",
    "BusyError",
    "CodecErrors",
    "Commentary",
    "CorruptError",
    "DropRatio",
    "Embedder",
    "Entry",
    "Evidence",
    "Fingerprint",
    "FingerprintError",
    "Frame",
    "FramePerceived",
    "FramesDropped",
    "Gap",
    "Hardware",
    "Heads",
    "KVBlock",
    "LoadChanged",
    "ModelConfig",
    "ModelError",
    "Moment",
    "Narrated",
    "Note",
    "NoteTaken",
    "Notes",
    "Probe",
    "RationChanged",
    "ReaderCancelled",
    "RecallCost",
    "Reply",
    "Rule",
    "SamplingConfig",
    "Savings",
    "Schedule",
    "Silence",
    "Simulation",
    "SourceError",
    "SourceOptions",
    "StoreError",
    "StoreOptions",
    "Stream",
    "StreamClosed",
    "StreamEnded",
    "StreamEvent",
    "StreamStats",
    "StreamVLMError",
    "TowerStats",
    "Trigger",
    "Watch",
    "WatchConfig",
    "WatchFired",
    "__version__",
    "chrome_trace",
    "codec_errors",
    "export_blocks",
    "families",
    "format_prune",
    "import_blocks",
    "load_model",
    "open_source",
    "parse_prune",
    "prune_methods",
    "read_trace",
    "rebuild_catalogue",
    "summarise_trace",
]

_HOME = {
    "streamvlm.agent": ("Agent",),
    "streamvlm.engine.answer": ("Answer",),
    "streamvlm.engine.evidence": ("Moment", "RecallCost"),
    "streamvlm.engine.events": (
        "AnswerDone",
        "AnswerPiece",
        "AnswerStarted",
        "FramePerceived",
        "FramesDropped",
        "Gap",
        "LoadChanged",
        "Narrated",
        "NoteTaken",
        "RationChanged",
        "StreamEnded",
        "StreamEvent",
        "StreamStats",
        "WatchFired",
    ),
    "streamvlm.engine.alarm": ("Rule",),
    "streamvlm.engine.baselines": ("Schedule",),
    "streamvlm.engine.tower": ("TowerStats",),
    "streamvlm.engine.triggers.base": ("Evidence", "Trigger"),
    "streamvlm.engine.triggers.commentary": ("Commentary",),
    "streamvlm.engine.triggers.drop_ratio": ("DropRatio",),
    "streamvlm.engine.triggers.heads": ("Heads",),
    "streamvlm.engine.triggers.probe": ("Probe",),
    "streamvlm.engine.triggers.reply": ("Reply",),
    "streamvlm.engine.triggers.silence": ("Silence",),
    "streamvlm.engine.virtual": ("H200_8B", "Hardware", "Simulation"),
    "streamvlm.engine.watches": ("Watch",),
    "streamvlm.errors": (
        "BudgetError",
        "BusyError",
        "CorruptError",
        "FingerprintError",
        "ModelError",
        "ReaderCancelled",
        "SourceError",
        "StoreError",
        "StreamClosed",
        "StreamVLMError",
    ),
    "streamvlm.engine.precision": ("CodecErrors", "codec_errors"),
    "streamvlm.memory.blocks": ("BlockShape", "KVBlock"),
    "streamvlm.memory.catalogue": ("Entry",),
    "streamvlm.memory.export": ("export_blocks", "import_blocks"),
    "streamvlm.memory.fingerprint": ("Fingerprint",),
    "streamvlm.memory.log": ("StoreOptions",),
    "streamvlm.memory.notes": ("Note", "Notes"),
    "streamvlm.memory.recovery": ("rebuild_catalogue",),
    "streamvlm.memory.store": ("BlockStore",),
    "streamvlm.models.loading": ("families", "load_model"),
    "streamvlm.pruning.savings": ("Savings",),
    "streamvlm.pruning.spec": ("format_prune", "parse_prune", "prune_methods"),
    "streamvlm.retrieval.external": ("Embedder",),
    "streamvlm.settings": ("ModelConfig", "SamplingConfig", "WatchConfig"),
    "streamvlm.source": ("SourceOptions", "open_source"),
    "streamvlm.stream": ("Stream",),
    "streamvlm.tracing": ("chrome_trace", "read_trace", "summarise_trace"),
    "streamvlm.types": ("Frame",),
    "streamvlm.version": ("__version__",),
}


def __getattr__(name: str) -> object:
    """Import a public name when it is first used, so that `streamvlm --help` need not load torch."""
    for module, names in _HOME.items():
        if name in names:
            return getattr(import_module(module), name)
    raise AttributeError(f"module 'streamvlm' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
