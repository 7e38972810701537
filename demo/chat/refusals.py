"""What a visitor is told when something is refused."""

from __future__ import annotations


class Refused(Exception):
    """A visitor asked for something that is not given; the message is for their eyes."""


class Full(Refused):
    """Every place is taken."""
