"""Hearing: what a session makes of what its stream says."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from streamvlm import Gap, LoadChanged, Narrated, NoteTaken, StreamEnded, StreamEvent, WatchFired
from streamvlm.demo.chat.clock import clock
from streamvlm.demo.chat.run import Run

if TYPE_CHECKING:
    from streamvlm.demo.chat.session import Session

NOTICED_GAP = 1.0  # seconds of stream lost that are worth a line
LOADS = {  # what the engine gives up, in words
    "no notes": "notes wait",
    "rare watches": "looking less often for what you wait for",
    "no duplicates": "leaving out pictures that show nothing new",
    "low resolution": "seeing less sharply",
    "low fps": "seeing fewer pictures",
    "newest only": "seeing only the newest picture",
    "no questions": "too busy for questions",
}


def hear(session: Session, run: Run, event: StreamEvent) -> None:
    """Enter an event into the session's transcript, board or load."""
    add, number = session.transcript.add, run.number
    if isinstance(event, WatchFired):
        if session.board.fired(number, event.condition, event.pts):
            add("fired", event.condition, run=number, at=event.pts, answer=event.answer)
    elif isinstance(event, Narrated) and event.text.strip():
        add("narration", event.text.strip(), run=number, at=event.pts)
    elif isinstance(event, NoteTaken):
        add("note", event.note.text, run=number, at=event.note.start)
    elif isinstance(event, LoadChanged):
        session.load = LOADS.get(event.name, event.name) if event.rung else ""
    elif isinstance(event, Gap) and event.seconds >= NOTICED_GAP:
        add("notice", f"{clock(event.seconds)} of it were not seen.", run=number, at=event.pts)
    elif isinstance(event, StreamEnded) and not run.stream.closed:
        session.load = ""
        told = f": {run.trouble}" if run.trouble else ". What was seen can still be asked about"
        at = event.pts if math.isfinite(event.pts) else None
        add("notice", f"{run.choice.name} has ended{told}.", run=number, at=at)
