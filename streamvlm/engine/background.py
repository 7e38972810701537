"""What the engine asks a model on its own behalf: readers that nobody waits for, in a room of their own."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING

from streamvlm.engine.answer import Answer
from streamvlm.engine.planning import Sort
from streamvlm.engine.reader import Done, Read, make_reader
from streamvlm.errors import BudgetError
from streamvlm.settings import SamplingConfig

if TYPE_CHECKING:
    from streamvlm.engine.stream import StreamState

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, eq=False)
class Request:
    """A question of the engine's own, as of now."""

    question: str
    sort: Sort
    limit: int  # tokens it may write; 0 if only the logits after the question are wanted
    on_done: Done
    read: Read | None = None  # takes those


def ask_self(stream: StreamState, request: Request) -> bool:
    """Give a request its snapshot; False if it has no room now.

    All of them together have `background_tokens` slots, which questions cannot take from them nor they from questions.
    """
    window = stream.window
    if window is None:
        return False
    taken = sum(len(r.prompt) + r.limit for r in stream.background)
    answer = Answer(request.question, None, lambda: None, stream.clock)
    rows = len(stream.model.question_layout(request.question))
    if taken + rows + request.limit > stream.config.background_tokens:
        return _never(request) if not stream.background else False
    reader = make_reader(stream.model, window, answer, SamplingConfig(), request.limit)
    reader.limit = request.limit  # 0 there means all the room there is
    reader.sort, reader.read, reader.on_done = request.sort, request.read, request.on_done
    reader.account.owner = stream.asking
    reader.account.enter(r.account for r in stream.background)
    stream.background.append(reader)
    answer.start(stream.now, window.spans)
    return True


def _never(request: Request) -> bool:
    """A request that cannot be made however long it waits is over now."""
    logger.warning("%r does not fit into background_tokens", request.question)
    answer = Answer(request.question, None, lambda: None)
    answer.finish("failed", BudgetError("background_tokens is too small"))
    request.on_done(answer, None)
    return True
