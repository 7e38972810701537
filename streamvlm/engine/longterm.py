"""LongTermMemory: what left one stream's window, on disk, and the way back for the questions that need it.

    evict -> copy -> [spill thread] un-rotate, store, index
    question -> probe -> [search thread] blocks -> reader

Nothing here makes a step wait: what cannot be stored in time is dropped and counted, and a question that is being
looked up simply has no rows in the steps meanwhile.
"""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

from torch import Tensor

from streamvlm.engine.evidence import Moment, RecallCost, Recalled, Search
from streamvlm.engine.finding import STREAM, make_finder
from streamvlm.engine.identity import fingerprint_of
from streamvlm.engine.looks import Look, Looks, newest_by
from streamvlm.engine.sessions import Session, next_session
from streamvlm.errors import StoreError
from streamvlm.memory.blocks import BlockShape, KVBlock
from streamvlm.memory.catalogue import Entry
from streamvlm.memory.leaving import Leaving
from streamvlm.memory.loading import Loaded
from streamvlm.memory.log import StoreOptions
from streamvlm.memory.spill import Spiller
from streamvlm.memory.store import BlockStore
from streamvlm.memory.window import Window
from streamvlm.models.base import VisionLanguageModel
from streamvlm.pruning.economy import Economy
from streamvlm.retrieval.external import Embedder
from streamvlm.retrieval.selection import Budget, Candidate, TopK, candidates, select
from streamvlm.retrieval.spans import time_spans
from streamvlm.settings import WatchConfig

logger = logging.getLogger(__name__)

SEARCHERS = 2  # questions looked up at the same time
CATCH_UP_SECONDS = 2.0  # how long a search waits for what was evicted just before it


Chosen = Sequence[tuple[Candidate, Entry]]  # blocks in time order, and where they are


@dataclass(frozen=True, slots=True, eq=False)
class _Part:
    """What was read for all layers, or for one."""

    chosen: Chosen
    loaded: Loaded

    def moments(self) -> Iterator[tuple[Candidate, bytes]]:
        """Each block and its picture."""
        return zip((candidate for candidate, _ in self.chosen), self.loaded.pictures, strict=True)


class LongTermMemory:
    """One stream's store, its index, and the threads that serve them.

    Raises:
        FingerprintError: the store was written by another model, precision or prompt.
        StoreError: it cannot be opened, or another process writes it.
    """

    def __init__(
        self,
        folder: Path,
        model: VisionLanguageModel,
        config: WatchConfig,
        *,
        resume: bool,
        wake: Callable[[], None],
        embedder: Embedder | None = None,
    ) -> None:
        """Open the memory in `folder`; with `resume` it has to be there, otherwise it is made if it is not.

        `embedder` is what `retrieve_method="embedding"` compares with; None: the model itself.
        """
        spec = model.text_spec
        shape = BlockShape(spec.layers, spec.kv_heads, spec.head_dim)
        quota = None if config.store_quota_mb is None else config.store_quota_mb << 20
        fingerprint, options = fingerprint_of(model, config), StoreOptions(quota=quota)
        blocks = folder / "blocks"
        self.folder = folder
        found = resume or BlockStore.exists(blocks)
        if found:
            self.store = BlockStore.open(blocks, fingerprint, shape, options=options)
        else:
            self.store = BlockStore.create(blocks, fingerprint, shape, options)
        self._config = config
        self._wake = wake
        try:
            self._finder = make_finder(folder, model, config.retrieve_method, embedder, fingerprint.digest)
            self._index = self._finder.index
            if found:
                added, removed = self._finder.catch_up(self.store)
                logger.info("opened %s: %d blocks indexed, %d dropped from the index", folder, added, removed)
        except BaseException:
            self.store.close()  # nobody else could open it while we hold its lock
            raise
        self._pins = model.device.type == "cuda"
        self._spiller = Spiller(self.store, device=model.device, prepare=self._prepare, on_stored=self._stored)
        self._searchers = ThreadPoolExecutor(SEARCHERS, thread_name_prefix="streamvlm-recall")
        self._refused = 0  # tokens that `keep` could not take
        self._outgrown = 0  # tokens dropped for the quota
        self._outgrown_before = self._dropped_for_quota()
        lasting = config.sink_frames // model.pixels.advance + 1
        self.looks = Looks(config.store_pictures, lasting=lasting, embed=self._finder.embed)
        self.began = 0.0  # seconds of stream time at which this watching began
        self._had_blocks = self.store.catalogue.totals().blocks > 0

    @property
    def empty(self) -> bool:
        """Whether there is nothing to find."""
        stats = self._spiller.stats
        return not self._had_blocks and stats.offered_blocks == stats.dropped_blocks

    @property
    def lost_tokens(self) -> int:
        """Tokens that `keep` took and that are not there: never written after all, or dropped for the quota since."""
        return self._spiller.stats.dropped_tokens - self._refused + self._outgrown

    @property
    def last_moment(self) -> float:
        """Seconds up to which the stored stream reaches; 0 when empty."""
        return self.store.catalogue.totals().stop

    def begin_session(self, *, live: bool) -> Session:
        """Watching begins, or begins again after what is stored.

        Raises:
            StoreError: the disk does not take it; the memory is closed.
        """
        try:
            session = next_session(self.folder, self.last_moment, live=live)
        except OSError as error:
            self.close()
            raise StoreError(self.folder, f"cannot be written: {error.strerror}") from error
        self.began = session.start
        return session

    def taker(self, economy: Economy | None) -> Callable[[Leaving], bool]:
        """`keep` for what leaves a window, of which an `economy` may leave out rows."""
        if economy is None or not economy.compresses:
            return self.keep
        keep = economy.before(self.keep)
        return lambda leaving: keep(leaving.block())

    def keep(self, block: KVBlock | Leaving) -> bool:
        """Take what leaves the window. Never blocks; False if it had to be dropped."""
        taken = self._spiller.offer(block, note=self.looks.take(block.start))
        self._refused += 0 if taken else len(block)
        return taken

    def _prepare(self, block: KVBlock, look: object) -> tuple[KVBlock, object]:
        """What is stored of a block, and what the index holds of it; runs on the spiller's thread."""
        assert isinstance(look, Look)
        return replace(block, stream=STREAM, thumbnail=look.picture), self._finder.vectors(block, look)

    def _stored(self, entries: Sequence[tuple[Entry, object]]) -> None:
        for entry, vectors in entries:
            assert isinstance(vectors, Tensor)
            self._index.add(entry.id, STREAM, entry.start, entry.stop, vectors.float().cpu())
        self._follow_quota()  # the index is not synced here: what a power cut takes of it is made again on opening

    def _follow_quota(self) -> None:
        """What the store has dropped for its quota leaves the index too; runs on the spiller's thread."""
        outgrown = self._dropped_for_quota() - self._outgrown_before
        if outgrown > self._outgrown:
            self._outgrown = outgrown
            self._index.remove(STREAM, self._index.blocks(STREAM) - {e.id for e in self.store.blocks()})

    def _dropped_for_quota(self) -> int:
        return int(self.store.catalogue.meta("dropped_tokens") or 0)

    def search(self, search: Search) -> Future[Recalled]:
        """Look a question up on another thread; the engine is woken when it is done."""
        future = self._searchers.submit(self._search, search)
        future.add_done_callback(lambda _: self._wake())
        return future

    def _search(self, search: Search) -> Recalled:
        begun = time.monotonic()
        self._spiller.drain(CATCH_UP_SECONDS)
        on_disk = time.monotonic()
        chosen = self._choose(search)
        selected = time.monotonic()
        found = self._load(chosen)
        cost = RecallCost(wait=on_disk - begun, select=selected - on_disk, read=time.monotonic() - selected)
        shown = {c.block: Moment(c.start, c.stop, c.score, picture) for part in found for c, picture in part.moments()}
        moments = tuple(sorted(shown.values(), key=lambda moment: moment.start))
        wanted = {c.block for part in chosen for c, _ in part}
        return Recalled(tuple(part.loaded.run for part in found), moments, cost, len(wanted) - len(shown))

    def _choose(self, search: Search) -> list[Chosen]:
        """The blocks to bring back, in time order: for all layers, or for each."""
        spans = [search.between] if search.between else [t.span for t in time_spans(search.question, search.now)]
        k, selection = self._config.retrieve_blocks, self._config.retrieve_selection
        hits = self._finder.search(search, 2 * k, spans or None, selection)
        budget = Budget(tokens=self._config.retrieve_tokens)
        chosen: list[Chosen] = []
        for row in range(len(hits.blocks) if len(hits) else 0):
            entries = self.store.catalogue.find(hits.blocks[row].tolist())
            found = [c for c in candidates(hits, _costs(entries), row) if c.stop <= search.now + 1e-6]
            kept = select(found, TopK(k), budget=budget, window=search.window).candidates
            chosen.append([(c, entries[c.block]) for c in kept])
        return chosen

    def _load(self, chosen: Sequence[Chosen]) -> list[_Part]:
        """The blocks that can be read, of each list."""
        found = []
        for layer, part in enumerate(chosen):
            read = self._read(part, None if len(chosen) == 1 else [layer])
            if read is None:
                return []  # a layer of which nothing is left could not span what the others do
            found.append(read)
        return found

    def _read(self, chosen: Chosen, layers: Sequence[int] | None) -> _Part | None:
        """The blocks that can be read; one that cannot does not take the others with it."""
        try:
            return self._read_all(chosen, layers) if chosen else None
        except StoreError:
            left = [one for one in chosen if self._readable(one[1], layers)]
        return self._read_all(left, layers) if left else None

    def _read_all(self, chosen: Chosen, layers: Sequence[int] | None) -> _Part:
        return _Part(chosen, self.store.load([entry for _, entry in chosen], layers, pin=self._pins))

    def _readable(self, entry: Entry, layers: Sequence[int] | None) -> bool:
        try:
            self.store.load([entry], layers)
        except StoreError as error:
            logger.warning("a block is left out of what was recalled: %s", error)
            return False
        return True

    def picture(self, time: float) -> tuple[float, bytes] | None:
        """(seconds, JPEG) of what was to be seen at `time`: the newest picture kept that is not later, else the first.

        Raises:
            StoreError: the disk does not give it back.
        """
        held, stored = self.looks.at(time), self.store.picture_at(time)
        return newest_by(time, [one for one in (held, stored) if one is not None and one[1]])

    def stop(self, window: Window | None) -> None:
        """Take what a `window` that is closed still holds, and no more searches; does not wait."""
        if window is not None:
            try:
                window.hand_over()
            except RuntimeError as error:  # the device is gone
                logger.warning("what was in the window is not stored: %s", error)
        self._searchers.shutdown(wait=False, cancel_futures=True)

    def close(self) -> None:
        """Store what is queued, end the threads, let another process in."""
        self._searchers.shutdown(wait=True, cancel_futures=True)
        self._spiller.close()
        try:
            self._index.close()
        finally:
            self.store.close()


def _costs(entries: dict[int, Entry]) -> Callable[[int], tuple[int, int]]:
    """Tokens and extent of a block. What was dropped for the quota a moment ago fits no budget."""
    gone = (sys.maxsize, sys.maxsize)
    return lambda block: (entries[block].tokens, entries[block].extent) if block in entries else gone


def outcome(future: Future[Recalled]) -> Recalled:
    """What a finished search found; a search that failed found nothing, which is logged."""
    try:
        return future.result(timeout=0)
    except Exception as error:  # noqa: BLE001 - whatever ails a disk or a database, every stream must go on
        logger.warning("nothing could be recalled: %r", error)
        return Recalled()
