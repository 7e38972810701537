"""What the demo prints."""

from __future__ import annotations

from collections.abc import Sequence

from streamvlm import StreamStats
from streamvlm.demo.job import Exchange, Question


class Table:
    """Lines of one width for all questions, printed one by one as the answers come."""

    def __init__(self, questions: Sequence[Question]) -> None:
        self._question = max([len(q.question) for q in questions], default=0)
        self._answer = max([len(q.answer) for q in questions] + [len("it says")])

    def head(self) -> str:
        """The names of the columns."""
        said, true = (name.ljust(self._answer) for name in ("it says", "true"))
        return f"{'asked':>7}  {'as of':>7}  {'question':{self._question}}  {said}  {true}         first token"

    def line(self, exchange: Exchange) -> str:
        """One exchange."""
        asked, answer = exchange.asked, exchange.answer
        said, true = (text.ljust(self._answer) for text in (_one_line(answer.so_far), asked.answer))
        first = "-" if answer.ttft_s is None else f"{1000 * answer.ttft_s:.0f} ms"
        return (
            f"{asked.time:5.1f} s  {answer.as_of or 0.0:5.1f} s  {asked.question:{self._question}}  {said}  {true}"
            f"  {'right' if exchange.right else 'WRONG':5}  {first:>11}"
        )

    def past(self, exchange: Exchange) -> str:
        """One exchange about what was brought back from disk."""
        asked, moments = exchange.asked, exchange.answer.recalled
        said, true = (text.ljust(self._answer) for text in (_one_line(exchange.answer.so_far), asked.answer))
        span = f"{moments[0].start:.1f}-{moments[-1].stop:.1f} s" if moments else "nothing found"
        return (
            f"{asked.time:5.1f} s  {span:>13}  {asked.question:{self._question}}  {said}  {true}"
            f"  {'right' if exchange.right else 'WRONG'}"
        )


def memory(stats: StreamStats) -> str:
    """How much was seen and how little of it is held."""
    return (
        f"{stats.frames} frames, {stats.frames_dropped} dropped. {stats.tokens_seen} tokens seen: "
        f"{stats.tokens_window} in the window, {stats.tokens_stored} evicted to disk, {stats.tokens_dropped} lost.\n"
        f"The cache never held more than {stats.peak_slots} of its {stats.capacity} slots."
    )


def _one_line(text: str) -> str:
    return "".join(character if character.isprintable() else " " for character in text)
