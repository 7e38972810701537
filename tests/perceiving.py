"""Perceivers by themselves, without an engine."""

from __future__ import annotations

from streamvlm.engine.perceiver import Block, Perceiver


def drained(perceiver: Perceiver) -> list[Block]:
    """All that is still to come of one that was started; it has stopped afterwards."""
    blocks: list[Block] = []
    while taken := perceiver.blocks.take(1)[0]:
        blocks += taken
    perceiver.stop()
    perceiver.join()
    return blocks
