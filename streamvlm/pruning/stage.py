"""Remembers nothing: the base of stages without state."""

from __future__ import annotations

from streamvlm.pruning.protocols import TokenBlock


class Stateless:
    """A stage that looks at one patch at a time."""

    def reset(self) -> None:
        """Nothing to forget."""

    def note(self, block: TokenBlock) -> None:
        """Nothing to remember."""
