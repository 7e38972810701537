"""Reader: one question on its way through the engine, from its snapshot to its last token."""

from __future__ import annotations

from concurrent.futures import Future
from dataclasses import dataclass, field

from torch import Tensor

from streamvlm.engine.answer import Answer
from streamvlm.engine.longterm import Recalled
from streamvlm.memory.slots import Rows
from streamvlm.memory.window import Window
from streamvlm.models.attention import Probe
from streamvlm.models.base import VisionLanguageModel
from streamvlm.models.sampling import Sampler
from streamvlm.settings import SamplingConfig
from streamvlm.types import Segment

UNFINISHED_CHARACTER = "�"  # what a tokenizer shows for the first bytes of a character


@dataclass(slots=True, eq=False)
class Lookup:
    """A reader's way to what is no longer in the window: its question is read once to know what to look for."""

    probe: Probe
    between: tuple[float, float] | None
    found: Future[Recalled] | None = None  # None while the question is being read


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
    lookup: Lookup | None = None  # None once it is over, or where nothing is stored

    @property
    def samples(self) -> bool:
        """Whether its rows of this step end where a token must be chosen."""
        return self.lookup is None and self.prefilled == len(self.prompt)

    def next_rows(self, window: Window, chunk: int) -> tuple[Segment, Rows]:
        """Its rows for the coming step: a piece of the prompt, or the last token it wrote."""
        if self.prefilled < len(self.prompt):
            stop = min(len(self.prompt), self.prefilled + chunk)
            segment = self.prompt.part(self.prefilled, stop)
            self.prefilled = stop
        else:
            segment = self.model.token_segment(self.tokens[-1])
        rows = window.cache.place_private(self.handle, segment.positions, segment.extent)
        return segment, rows

    def choose(self, logits: Tensor) -> str:
        """Sample a token from logits [vocabulary]; returns the text it completed. May finish the answer."""
        token = self.sampler(logits)
        if token in self.model.eos_tokens:
            return self._hand_over(self._text()[self.shown :], tokens=0, finish=True)
        self.tokens.append(token)
        text = self._text()
        stops = [at for s in self.stop if (at := text.find(s, max(0, self.shown - len(s)))) >= 0]
        if stops:
            return self._hand_over(text[self.shown : min(stops)], tokens=1, finish=True)
        piece = "" if text.endswith(UNFINISHED_CHARACTER) else text[self.shown :]
        self.shown += len(piece)
        self._hand_over(piece, tokens=1, finish=False)
        if len(self.tokens) >= self.limit:
            self.answer.finish("truncated")
        return piece

    def _text(self) -> str:
        text: str = self.model.tokenizer.decode(self.tokens, skip_special_tokens=True)
        return text

    def _hand_over(self, piece: str, *, tokens: int, finish: bool) -> str:
        self.answer.write(piece, tokens)
        if finish:
            self.answer.finish("complete")
        return piece


def make_reader(
    model: VisionLanguageModel, window: Window, answer: Answer, sampling: SamplingConfig, room: int
) -> Reader:
    """Fork a reader off the window as it is now. O(1) in the window's size: only its epoch is pinned."""
    ids = model.question_layout(answer.question).ids.tolist()
    prompt = model.question_segment(answer.question, window.entries[-1].stop)
    limit = min(sampling.max_new_tokens or room, room)
    sampler = Sampler(sampling, ids, model.eos_tokens)
    return Reader(answer, model, window.open_reader(), prompt, sampler, limit, sampling.stop)
