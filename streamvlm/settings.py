"""Every setting of StreamVLM, as three records that check themselves; `streamvlm.config` fills them.

No two records share a field name, so a setting has one name everywhere. Two pairs are easily mixed up:
`max_answer_tokens` (watch) is the room an answer is given in the cache, `max_new_tokens` (sampling) ends one
answer earlier; `policy` (watch) is what stays in the cache, `backend` (watch) how attention is computed.
This module imports nothing heavy, so that `streamvlm --help` is instant.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Literal, get_args

Policy = Literal["sink_window", "full", "last_frames", "sliding", "sliding_recompute"]
Backend = Literal["auto", "sdpa", "flex"]
Codec = Literal["fp16", "int8"]
Live = Literal["snapshot", "overlapped", "group_decoupled", "gap_isolated"]
RetrieveSelection = Literal["shared", "per_layer"]
RetrieveMethod = Literal["mean_key", "top_tokens", "clusters", "pages", "recency", "embedding"]
Dtype = Literal["auto", "float32", "bfloat16", "float16"]


class SettingError(ValueError):
    """A setting has a value that is not allowed; `name` is the field."""

    def __init__(self, name: str, rule: str, value: object) -> None:
        super().__init__(f"{name} must be {rule}, got {value!r}")
        self.name = name


def _require(holds: bool, name: str, rule: str, value: object) -> None:
    if not holds:
        raise SettingError(name, rule, value)


def _require_least(record: object, least: float, *names: str) -> None:
    for name in names:
        value = getattr(record, name)
        _require(value is None or value >= least, name, f"at least {least}", value)


def _require_positive(record: object, *names: str) -> None:
    for name in names:
        value = getattr(record, name)
        _require(0 < value < math.inf, name, "greater than 0 and finite", value)


def _require_choice(name: str, choices: object, value: str) -> None:
    allowed = get_args(choices)
    _require(value in allowed, name, f"one of {', '.join(allowed)}", value)


def check_options(options: Mapping[str, object], record: type) -> None:
    """Raise ValueError if `options` names something that `record` does not have, with what it has."""
    names = [f.name for f in fields(record)]
    for name in options:
        if name not in names:
            raise ValueError(f"unknown option {name!r}; {record.__name__} has {', '.join(names)}")


@dataclass(frozen=True, slots=True)
class ModelConfig:
    """Which model, where it runs, and how large pictures reach it."""

    model: str = "tiny"  # "tiny", a Hugging Face hub id, or a local folder
    device: str = "auto"  # auto, cpu, mps, cuda or cuda:N
    dtype: Dtype = "auto"  # auto: bfloat16 on an accelerator, else float32
    device_map: str | None = None  # spread the model over devices through accelerate, e.g. "auto"
    min_pixels: int | None = None  # per frame, after the family's resize rule; None: the checkpoint's own
    max_pixels: int | None = None
    system_prompt: str | None = None  # None: the family's own

    def __post_init__(self) -> None:
        _require(bool(self.model), "model", "a hub id, a folder or 'tiny'", self.model)
        device_ok = re.fullmatch(r"auto|cpu|mps|cuda(:\d+)?", self.device) is not None
        _require(device_ok, "device", "auto, cpu, mps, cuda or cuda:N", self.device)
        _require_choice("dtype", Dtype, self.dtype)
        _require_least(self, 1, "min_pixels", "max_pixels")
        if self.min_pixels is not None and self.max_pixels is not None:
            holds = self.min_pixels <= self.max_pixels
            _require(holds, "min_pixels", f"at most max_pixels ({self.max_pixels})", self.min_pixels)


@dataclass(frozen=True, slots=True)
class WatchConfig:
    """How a stream is sampled and what stays in the cache."""

    fps: float = 2.0  # frames taken per second of stream
    tokens_per_second: float | None = None  # vision tokens for a second of stream; frame rate and size give way to it
    max_utilisation: float | None = None  # part of the engine's time that watching live streams may take; the same
    least_fps: float = 0.5  # below which these do not take the frame rate
    realtime: bool = False  # play a file at its own pace instead of as fast as it can be read
    policy: Policy = "sink_window"
    window_seconds: float = 16.0  # vision that stays visible (sink_window, sliding, sliding_recompute)
    text_window: int = 512  # text tokens of the stream itself that stay visible
    last_frames: int = 4  # frames that stay visible under policy last_frames
    sink_frames: int = 1  # first frames that are never evicted
    max_readers: int = 8  # answers written at the same time
    max_questions: int = 256  # answers not done, those written included; more are refused
    max_question_tokens: int = 256  # room of one question in the cache
    max_answer_tokens: int = 128  # room of one answer in the cache
    background_tokens: int = 512  # room in the cache for watches, narration and notes together
    narrate: bool = False  # say once a second what happened
    trace: str | None = None  # file that is told when each frame, token and loss happened; None: none
    live: Live = (
        "snapshot"  # overlapped, group_decoupled, gap_isolated: answers see frames that come while they are written
    )
    live_anyway: bool = False  # let a model do so that was not trained for it; to be measured only
    write_gaps: bool = True  # tell the model, in the stream's own text, how much of it is missing
    notes: bool = False  # write down what happens, and show a question what was written about it
    notes_tokens: int = 192  # room for that before one question
    pinned_seconds: float = 16.0  # evicted stream that answers still being written may keep alive
    rebase_at: int = 8192  # position past which the whole cache is shifted back
    backend: Backend = "auto"
    decode_workers: int = 1  # threads that decode a local MP4 or Matroska file between its keyframes
    queue_frames: int = 4  # decoded frames that may wait for the model
    share_tower: bool = True  # frames that wait at once, of other streams too, are one call of the vision tower
    full_capacity_tokens: int = 32768  # cache size under policy full, which evicts nothing
    prune: str | tuple[object, ...] | None = None  # what is left out: dtd(tau=0.04)+cap(96), or records of methods
    store: str | None = None  # folder that keeps what leaves the window; None: it is forgotten
    store_codec: Codec = "fp16"  # how it is written: fp16, or int8 for half the bytes
    store_quota_mb: int | None = None  # MiB on disk, the oldest go first; None: no limit
    store_pictures: int = 128  # pixels, longer side of the JPEG kept with what leaves the window; 0: none
    retrieve_tokens: int = 512  # tokens brought back for one question at most
    retrieve_blocks: int = 12  # temporal patches brought back for one question at most
    retrieve_method: RetrieveMethod = "mean_key"  # by keys; embedding: by pictures and the question's text
    keep_window: bool = False  # of a moment that has left the window, also show the window beside what was stored
    retrieve_selection: RetrieveSelection = "shared"  # the same for all layers of the model, or per_layer

    def __post_init__(self) -> None:
        _require_positive(self, "fps", "window_seconds", "least_fps")
        _require(
            self.tokens_per_second is None or 0 < self.tokens_per_second < math.inf,
            "tokens_per_second",
            "greater than 0 and finite, or None for no budget",
            self.tokens_per_second,
        )
        _require(
            self.max_utilisation is None or 0 < self.max_utilisation <= 1,
            "max_utilisation",
            "in (0, 1]",
            self.max_utilisation,
        )
        _require_choice("policy", Policy, self.policy)
        _require_choice("backend", Backend, self.backend)
        _require_least(self, 0, "text_window", "sink_frames", "pinned_seconds", "background_tokens", "notes_tokens")
        _require_least(
            self, 1, "last_frames", "max_readers", "max_questions", "max_question_tokens", "max_answer_tokens"
        )
        _require_least(self, 1, "rebase_at", "queue_frames", "decode_workers", "full_capacity_tokens")
        _require_choice("live", Live, self.live)
        _require_choice("store_codec", Codec, self.store_codec)
        _require_choice("retrieve_selection", RetrieveSelection, self.retrieve_selection)
        _require_choice("retrieve_method", RetrieveMethod, self.retrieve_method)
        _require_least(self, 0, "store_pictures")
        _require_least(self, 1, "store_quota_mb", "retrieve_tokens", "retrieve_blocks")


@dataclass(frozen=True, slots=True)
class SamplingConfig:
    """How the next token of an answer is chosen and when an answer ends."""

    temperature: float = 0.0  # 0: greedy
    top_p: float = 1.0  # 1: off
    top_k: int = 0  # 0: off
    min_p: float = 0.0  # 0: off
    repetition_penalty: float = 1.0  # 1: off
    seed: int | None = None  # None: a fresh one for every answer
    min_new_tokens: int = 0  # tokens before which the model may not end an answer
    max_new_tokens: int | None = None  # None: all the room the stream gives (max_answer_tokens)
    stop: tuple[str, ...] = ()  # strings that end the answer

    def __post_init__(self) -> None:
        _require_least(self, 0, "temperature", "top_k", "seed", "min_new_tokens")
        _require(self.seed is None or self.seed < 2**63, "seed", "less than 2**63", self.seed)
        _require(0 < self.top_p <= 1, "top_p", "in (0, 1]", self.top_p)
        _require(0 <= self.min_p <= 1, "min_p", "in [0, 1]", self.min_p)
        _require_positive(self, "repetition_penalty")
        _require_least(self, 1, "max_new_tokens")
        listed = isinstance(self.stop, (tuple, list))  # a lone string would stop at each of its letters
        _require(listed, "stop", "a tuple of strings", self.stop)
        _require(all(self.stop), "stop", "non-empty strings", self.stop)


@dataclass(frozen=True, slots=True)
class Config:
    """All settings of one run."""

    model: ModelConfig = field(default_factory=ModelConfig)
    watch: WatchConfig = field(default_factory=WatchConfig)
    sampling: SamplingConfig = field(default_factory=SamplingConfig)
