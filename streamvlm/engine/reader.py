"""Reader: one question on its way through the engine, from its snapshot to its last token."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field

from torch import Tensor

from streamvlm.engine.answer import Answer, Status
from streamvlm.engine.evidence import Glimpse, Recalled
from streamvlm.engine.live import follow
from streamvlm.engine.moments import told
from streamvlm.engine.planning import Account, Sort
from streamvlm.memory.rows import Rows
from streamvlm.memory.window import Window
from streamvlm.models.attention import Probe
from streamvlm.models.base import VisionLanguageModel
from streamvlm.models.sampling import Sampler
from streamvlm.prompts import with_notes
from streamvlm.settings import Live, SamplingConfig
from streamvlm.types import Segment

UNFINISHED_CHARACTER = "�"  # what a tokenizer shows for the first bytes of a character


@dataclass(slots=True, eq=False)
class Lookup:
    """A reader's way to what is no longer in the window: its question is read once to know what to look for."""

    probe: Probe
    between: tuple[float, float] | None
    found: Future[Recalled] | None = None  # None while the question is being read
    in_view: tuple[Glimpse, ...] = ()
    begun: float = field(default_factory=time.monotonic)
    probed: float = 0.0  # time.monotonic() when the question had been read


@dataclass(slots=True, eq=False)
class Reader:
    """One live answer. Owned by the engine thread."""

    answer: Answer
    model: VisionLanguageModel
    handle: int  # its id in the slot cache, which pins its snapshot
    prompt: Segment
    sampler: Sampler
    limit: int  # tokens it may write
    stop: tuple[str, ...] = ()
    tokens: list[int] = field(default_factory=list)
    shown: int = 0  # characters already handed over
    prefilled: int = 0  # rows of the prompt already in the cache
    writes: bool = True  # False: only what is recalled is wanted
    noted: bool = True  # whether its answer becomes a note
    lookup: Lookup | None = None  # None once it is over, or where nothing is stored
    moment: float | None = None  # seconds of stream time the question is about, where that is a single moment
    notes: tuple[tuple[float, str], ...] = ()  # (seconds, text) shown before its question
    live: Live = "snapshot"  # whether and how it sees frames that come while it is written
    account: Account = field(default_factory=Account)
    sort: Sort = Sort.PROMPT  # of its prompt; an answer's tokens are Sort.TOKEN
    read: Read | None = None  # takes the logits after the prompt instead of writing
    on_done: Done | None = None  # told at the end, for readers that no caller waits for

    @property
    def samples(self) -> bool:
        """Whether its rows of this step end where a token must be chosen."""
        return self.lookup is None and self.prefilled == len(self.prompt)

    @property
    def unread(self) -> int:
        """Rows of its prompt that are not in the cache yet."""
        return len(self.prompt) - self.prefilled

    def next_rows(self, window: Window, chunk: int) -> tuple[Segment, Rows]:
        """Its rows for the coming step: a piece of the prompt, or the last token it wrote."""
        if self.prefilled < len(self.prompt):
            stop = min(len(self.prompt), self.prefilled + chunk)
            segment = self.prompt.part(self.prefilled, stop)
            self.prefilled = stop
            self.answer.tokens_read += len(segment)
        else:
            segment = self.model.token_segment(self.tokens[-1])
            if self.live != "snapshot":
                follow(self, window)
        rows = window.cache.place_private(self.handle, segment.positions, segment.extent)
        return segment, rows

    def choose(self, logits: Tensor) -> str:
        """Sample a token from logits [vocabulary]; returns the text it completed. May finish the answer."""
        if self.read is not None:
            self.read(logits, self)
            self.answer.finish("complete")
            return ""
        token = self.sampler(logits)
        if token in self.model.eos_tokens:
            return self._hand_over(self._text(), tokens=0, status="complete")
        self.tokens.append(token)
        text = self._text()
        stops = [at for s in self.stop if (at := text.find(s, self.shown)) >= 0]
        if stops:
            return self._hand_over(text[: min(stops)], tokens=1, status="complete")
        if len(self.tokens) >= self.limit:
            return self._hand_over(text.rstrip(UNFINISHED_CHARACTER), tokens=1, status="truncated")
        ready = "" if text.endswith(UNFINISHED_CHARACTER) else text[: len(text) - self._held(text)]
        return self._hand_over(ready, tokens=1)

    def _held(self, text: str) -> int:
        """Characters at the end that may turn out to begin a stop string."""
        return max((n for s in self.stop for n in range(1, len(s)) if text.endswith(s[:n])), default=0)

    def _text(self) -> str:
        text: str = self.model.tokenizer.decode(self.tokens, skip_special_tokens=True)
        return text

    def _hand_over(self, text: str, *, tokens: int, status: Status | None = None) -> str:
        """Write what of `text` has not been shown yet."""
        piece = text[self.shown :]
        self.shown += len(piece)
        self.answer.write(piece, tokens)
        if status is not None:
            self.answer.finish(status)
        return piece


Read = Callable[[Tensor, Reader], None]
"""Takes the logits after a reader's prompt, float32 [vocabulary], and that reader."""

Done = Callable[[Answer, Reader | None], None]
"""Takes an answer that is over and its reader, whose snapshot is still there; None if it never had one."""


@dataclass(frozen=True, slots=True)
class Briefing:
    """What a reader is given besides its question."""

    moment: float | None = None  # seconds of stream time the question is about, where that is a single moment
    notes: Sequence[tuple[float, str]] = ()  # (seconds, text) to be shown before it
    like: Reader | None = None  # it sees what this one sees; None: the window as it is now


def make_reader(
    model: VisionLanguageModel,
    window: Window,
    answer: Answer,
    sampling: SamplingConfig,
    room: int,
    briefing: Briefing = Briefing(),
) -> Reader:
    """Fork a reader off the window as it is now, or as another reader sees it. O(1) in the window's size: only an
    epoch is pinned."""
    moment, notes, like = briefing.moment, briefing.notes, briefing.like
    text = with_notes(notes, told(model, answer.question, moment, window.frame_times))
    ids = model.question_layout(text).ids.tolist()
    prompt = model.question_segment(text, answer.asked_at or 0.0)
    limit = min(sampling.max_new_tokens or room, room)
    sampler = Sampler(sampling, ids, model.eos_tokens)
    handle = window.open_reader() if like is None else window.fork_reader(like.handle)
    reader = Reader(answer, model, handle, prompt, sampler, limit, sampling.stop, moment=moment)
    reader.notes = tuple(notes)
    return reader
