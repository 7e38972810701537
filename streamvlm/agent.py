"""Agent: the public way in. It holds a model and watches streams with it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

from streamvlm.closing import Closing
from streamvlm.engine.baselines import Schedule
from streamvlm.engine.live import check_live
from streamvlm.engine.longterm import LongTermMemory
from streamvlm.engine.sessions import later
from streamvlm.engine.tower import TowerStats
from streamvlm.engine.two_threads import make_engine
from streamvlm.models.backends import measured
from streamvlm.models.base import VisionLanguageModel
from streamvlm.models.loading import load_model
from streamvlm.pruning.economy import Economy
from streamvlm.pruning.starting import start_economy
from streamvlm.retrieval.external import Embedder
from streamvlm.settings import ModelConfig, SamplingConfig, WatchConfig, check_options
from streamvlm.source import SourceOptions, open_source
from streamvlm.stream import Stream
from streamvlm.types import Frame


class Agent(Closing):
    """A vision-language model that watches streams, any number at once, on one engine thread.

    Close it, or use it as a context manager; its streams close with it.
    """

    def __init__(
        self,
        model: VisionLanguageModel,
        *,
        watch: WatchConfig | None = None,
        sampling: SamplingConfig | None = None,
        schedule: Schedule = "packed",
        embedder: Embedder | None = None,
    ) -> None:
        """`embedder` is what streams with `retrieve_method="embedding"` find stored moments by (CLIP, SigLIP, …);
        None: the model's own embedding of pictures and text.

        Raises:
            TypeError: `model` is not loaded; a name or folder goes to `from_pretrained`.
        """
        if isinstance(model, str | Path):
            raise TypeError(f"Agent takes a loaded model; for a name or folder, Agent.from_pretrained({str(model)!r})")
        self.model = model
        self._embedder = embedder
        self.watch_config = watch or WatchConfig()
        self.sampling = sampling or SamplingConfig()
        wanted = self.watch_config.backend
        self._engine = make_engine(model, measured(model) if wanted == "auto" else wanted, schedule)
        self._engine.start()
        self._streams: list[Stream] = []

    @classmethod
    def from_pretrained(
        cls,
        model: str | Path = "tiny",
        *,
        watch: WatchConfig | None = None,
        sampling: SamplingConfig | None = None,
        **options: Any,  # noqa: ANN401
    ) -> Self:
        """Load `tiny`, a local folder or a hub id; `options` are fields of ModelConfig (device, dtype, …).

        Raises:
            ModelError: it cannot be loaded.
            ValueError: an unknown option or value.
        """
        check_options(options, ModelConfig)
        return cls(load_model(ModelConfig(model=str(model), **options)), watch=watch, sampling=sampling)

    def watch(self, source: str | Path | Iterable[Frame], **options: Any) -> Stream:  # noqa: ANN401
        """Begin to watch a file, a folder of images, a URL, a webcam, or any iterable of frames.

        A `store` that an earlier stream left, also one that crashed, is continued, at times after those stored.
        `options` are fields of WatchConfig (fps, realtime, policy, window_seconds, …). A file plays as far as it is
        asked about, `play()` lets it run; a live source, or a file with `realtime=True`, runs by the clock.
        An iterable is taken as it comes: `fps` then only says how large a window its frames need, and with
        `realtime=True` it keeps its own pace, frames that come too fast being dropped.

        Raises:
            SourceError: the source cannot be opened.
            BusyError: it is live, and the streams already here leave too little time for it.
            FingerprintError: the store was written by another model, precision or prompt.
            StoreError: the store cannot be written, or another process writes it.
            ValueError: an unknown option or value, a composition for `prune` that is none, `live` of a model that was
                not trained for it.
        """
        check_options(options, WatchConfig)
        config = replace(self.watch_config, **options)
        if config.backend != self.watch_config.backend:
            raise ValueError("backend is chosen for a whole Agent: pass it in Agent(watch=WatchConfig(backend=…))")
        if config.store is not None and config.policy in ("last_frames", "sliding_recompute"):
            raise ValueError(f"policy={config.policy} prefills afresh and has nothing to store; leave store out")
        check_live(self.model, config)
        economy = start_economy(self.model, config)
        if isinstance(source, str | Path):
            source = open_source(
                source, fps=config.fps, realtime=config.realtime, options=SourceOptions(workers=config.decode_workers)
            )
        live = config.realtime or bool(getattr(source, "live", False))
        try:
            if live:
                self._engine.check_room(self.model.pixels.advance / config.fps)
            memory = self._memory(config, resume=False)
            if memory is not None:
                source = later(source, memory.begin_session(live=live))
        except BaseException:
            close = getattr(source, "close", None)
            if close is not None:
                close()
            raise
        return self._begin(source, config, memory, economy)

    def resume(self, store: str | Path, **options: Any) -> Stream:  # noqa: ANN401
        """Reopen what `watch(…, store=…)` kept, also after a crash, to ask about it; nothing new is perceived.

        Raises:
            FingerprintError: it was written by another model, precision or prompt.
            StoreError: there is nothing to resume, or another process writes it.
            ValueError: an unknown option or value.
        """
        check_options(options, WatchConfig)
        config = replace(self.watch_config, **options, store=str(store))
        return self._begin(iter(()), config, self._memory(config, resume=True))

    @property
    def encoding(self) -> TowerStats:
        """Calls of the vision tower that the streams share, and the temporal patches encoded in them, so far."""
        return self._engine.tower.stats

    def _memory(self, config: WatchConfig, *, resume: bool) -> LongTermMemory | None:
        if config.store is None:
            return None
        return LongTermMemory(
            Path(config.store), self.model, config, resume=resume, wake=self._engine.wake, embedder=self._embedder
        )

    def _begin(
        self,
        source: Iterable[Frame],
        config: WatchConfig,
        memory: LongTermMemory | None,
        economy: Economy | None = None,
    ) -> Stream:
        self._streams = [s for s in self._streams if not s.closed]
        try:
            stream = Stream(self._engine, source, config, self.sampling, memory, economy)
        except BaseException:  # notes that cannot be read, a trace that cannot be written, an engine that has stopped
            if memory is not None:
                memory.close()
            getattr(source, "close", lambda: None)()
            raise
        self._streams.append(stream)
        return stream

    def close(self) -> None:
        """Close every stream and stop the engine."""
        for stream in list(self._streams):
            stream.close()
        self._engine.stop()
