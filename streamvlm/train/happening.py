"""What is happening in a frame, as labels: what a frame's last row must be able to tell, halfway up the text tower."""

from __future__ import annotations

from streamvlm.world.happenings import KINDS
from streamvlm.world.scene import COLORS, SHAPES
from streamvlm.world.story import Story
from streamvlm.world.wording import find

_KINDS = ("cut", *KINDS)
SIZES = (3, len(_KINDS) + 1, len(COLORS) + 1, len(SHAPES) + 1)  # when, what, and the colour and shape of what did it
RECENT = 1.0  # seconds for which an event counts as just over


def happening(story: Story, time: float) -> tuple[int, int, int, int]:
    """Nothing (0), going on (1) or just over (2); which kind of event; its actor's colour and shape, as they were."""
    event = story.event_at(time)
    if event.kind == "start" or time - event.stop >= RECENT:
        return 0, 0, 0, 0
    actor = find(event.before, event.thing) or find(event.after, event.thing)
    look = (list(COLORS).index(actor.color) + 1, SHAPES.index(actor.shape) + 1) if actor else (0, 0)
    return (1 if time < event.stop else 2), _KINDS.index(event.kind) + 1, *look
