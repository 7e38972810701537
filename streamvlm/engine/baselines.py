"""Schedules: ours, and those of published systems, to be measured against on the same engine.

What differs is only which rows may go into a step together; model, kernels, caches and answers are the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, get_args

from streamvlm.engine.bidding import Work
from streamvlm.engine.planning import Bid
from streamvlm.engine.stream import StreamState

Schedule = Literal["packed", "blocking", "wait_k", "alternating", "two_threads"]
SCHEDULES: tuple[Schedule, ...] = get_args(Schedule)
WAIT_K = 16  # tokens written between two frames (LiveCC, arXiv 2504.16030, writes up to 16 per second of video)


def allowed(schedule: Schedule, stream: StreamState, bids: Sequence[Bid[Work]]) -> list[Bid[Work]]:
    """Those of one stream's bids that `schedule` would consider now.

    `packed` perceives and writes in the same forward pass. `blocking` watches again when all answers are done
    (VideoLLM-online, arXiv 2406.11816). `wait_k` writes up to k tokens of one answer between two frames. `alternating`
    batches the answers and takes turns, a step of one and a step of the other. `two_threads` has an engine of its own.
    """
    frames = [b for b in bids if b.what.reader is None]
    others = [b for b in bids if b.what.reader is not None]
    if schedule == "packed" or not others:
        return [*frames, *others]
    if schedule == "blocking":
        return others
    if schedule == "alternating":
        return others if stream.perceived_last or not frames else frames
    return others[:1] if stream.written < WAIT_K or not frames else frames
