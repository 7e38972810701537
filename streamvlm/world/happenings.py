"""What can happen in a scene, and how often."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal, Protocol

from streamvlm.world.scene import COLORS, HELD_OUT, MAX_THINGS, SHAPES, WORDS, Backdrop, Scene, Sign, Thing

Looks = Literal["all", "seen", "held_out"]  # all of them; without, or mostly, those that training never shows
# How often each kind happens, where it can.
KINDS: dict[str, float] = {
    "enter": 3.0,
    "leave": 2.4,
    "move": 2.0,
    "recolor": 1.2,
    "blink": 1.4,
    "hit": 1.0,
    "sign": 2.0,
    "light": 0.5,
    "shake": 0.5,
}
_AGAIN = 0.45  # chance that what just blinked or hit something does so once more
# Seconds of Pace.change that a kind takes; the rest happen at once.
_SLOWNESS = {"enter": 1.0, "leave": 1.0, "move": 1.0, "blink": 1.0, "hit": 1.6, "shake": 1.2}
# Things that training never shows doing something, though it shows others of their shape and others doing it.
HELD_OUT_DEEDS = frozenset({("blink", "cross"), ("recolor", "diamond"), ("hit", "circle")})


@dataclass(frozen=True, slots=True)
class Happening:
    """What comes next."""

    kind: str
    after: Scene
    thing: int | None = None
    other: int | None = None

    @property
    def slowness(self) -> float:
        """How long it takes, in units of the story's pace; 0 is at once."""
        return _SLOWNESS.get(self.kind, 0.0)


class Past(Protocol):
    """The event before."""

    @property
    def kind(self) -> str: ...
    @property
    def after(self) -> Scene: ...
    @property
    def thing(self) -> int | None: ...


class Playwright:
    """Decides what happens next in one story."""

    def __init__(self, rng: random.Random, looks: Looks) -> None:
        if looks not in ("all", "seen", "held_out"):
            raise ValueError(f"looks must be all, seen or held_out, got {looks!r}")
        self._random = rng
        self._looks = looks
        self._next_id = 0
        self._acts: dict[str, Callable[[Scene], Happening | None]] = {
            "enter": self._enter,
            "leave": self._leave,
            "move": self._move,
            "recolor": self._recolor,
            "blink": self._blink,
            "hit": self._hit,
            "sign": self._sign,
            "light": lambda scene: Happening("light", replace(scene, dim=not scene.dim)),
            "shake": lambda scene: Happening("shake", scene),
        }

    def next(self, past: Past, cut: float) -> Happening:
        """What follows the event `past`; `cut` is the chance of a new scene."""
        scene = past.after
        if self._random.random() < cut:
            return Happening("cut", self.fresh_scene())
        again = next((t for t in scene.things if t.id == past.thing), None)
        if past.kind in ("blink", "hit") and again and self._random.random() < _AGAIN:
            happening = self._blink(scene, again) if past.kind == "blink" else self._hit(scene, again)
            if happening:
                return happening
        kinds = dict(KINDS)
        while True:
            kind = self._random.choices([*kinds], [*kinds.values()])[0]
            happening = self._acts[kind](scene)
            if happening:
                return happening
            del kinds[kind]  # not in this scene

    def fresh_scene(self) -> Scene:
        """Another place with other things."""
        level = self._random.randrange(35, 100)
        backdrop = Backdrop(self._tone(level), self._tone(level), vertical=self._random.random() < 0.5)
        scene = Scene((), None, backdrop, dim=self._random.random() < 0.15)
        if self._random.random() < 0.8:
            scene = self._turn_sign(scene)
        for _ in range(self._random.randint(0, MAX_THINGS)):
            scene = replace(scene, things=(*scene.things, self._fresh_thing(scene)))
        return scene

    def _enter(self, scene: Scene) -> Happening | None:
        if len(scene.things) >= MAX_THINGS:
            return None
        arrived = self._fresh_thing(scene)
        return Happening("enter", replace(scene, things=(*scene.things, arrived)), arrived.id)

    def _leave(self, scene: Scene) -> Happening | None:
        thing = self._some(scene, "leave")
        if thing is None:
            return None
        return Happening("leave", replace(scene, things=tuple(t for t in scene.things if t != thing)), thing.id)

    def _move(self, scene: Scene) -> Happening | None:
        thing = self._some(scene, "move")
        if thing is None:
            return None
        return self._becomes("move", scene, replace(thing, cell=self._random.choice(scene.free_cells)))

    def _recolor(self, scene: Scene) -> Happening | None:
        thing = self._some(scene, "recolor")
        colors = [c for c, shape in self._unseen(scene) if thing and shape == thing.shape]
        if thing is None or not colors:
            return None
        color = self._random.choice(colors)
        return self._becomes("recolor", scene, replace(thing, color=color, tint=self._tint(color)))

    def _blink(self, scene: Scene, thing: Thing | None = None) -> Happening | None:
        thing = thing or self._some(scene, "blink")
        return Happening("blink", scene, thing.id) if thing else None

    def _hit(self, scene: Scene, thing: Thing | None = None) -> Happening | None:
        thing = thing or self._some(scene, "hit")
        others = [t for t in scene.things if t != thing]
        return Happening("hit", scene, thing.id, self._random.choice(others).id) if thing and others else None

    def _sign(self, scene: Scene) -> Happening | None:
        return Happening("sign", self._turn_sign(scene))

    def _some(self, scene: Scene, deed: str) -> Thing | None:
        shown = [t for t in scene.things if self._looks != "seen" or (deed, t.shape) not in HELD_OUT_DEEDS]
        return self._random.choice(shown) if shown else None

    def _becomes(self, kind: str, scene: Scene, new: Thing) -> Happening:
        return Happening(kind, replace(scene, things=tuple(new if t.id == new.id else t for t in scene.things)), new.id)

    def _turn_sign(self, scene: Scene) -> Scene:
        """Show the next text, or take the sign away, or put one up."""
        if scene.sign is None:
            words = self._random.random() < 0.3
            text = self._random.choice(WORDS) if words else str(self._random.randrange(100))
            return replace(scene, sign=Sign(text, self._random.choice(scene.free_cells)))
        if self._random.random() < 0.15:
            return replace(scene, sign=None)
        text = scene.sign.following or str((int(scene.sign.text) + self._random.randrange(1, 100)) % 100)
        return replace(scene, sign=replace(scene.sign, text=text))

    def _tone(self, level: int) -> tuple[int, int, int]:
        red, green, blue = (level + self._random.randrange(-14, 15) for _ in range(3))
        return red, green, blue

    def _tint(self, color: str) -> tuple[int, int, int]:
        red, green, blue = (min(255, max(0, v + self._random.randint(-12, 12))) for v in COLORS[color])
        return red, green, blue

    def _unseen(self, scene: Scene) -> list[tuple[str, str]]:
        """Looks that nothing in sight has, so that colour and shape together always name one thing."""
        seen = {(thing.color, thing.shape) for thing in scene.things}
        free = [(c, s) for c in COLORS for s in SHAPES if (c, s) not in seen]
        if self._looks == "all":
            return free
        kept = [look for look in free if look not in HELD_OUT]
        if self._looks == "seen":
            return kept
        held = [look for look in free if look in HELD_OUT]
        return held if held and self._random.random() < 0.7 else kept

    def _fresh_thing(self, scene: Scene) -> Thing:
        color, shape = self._random.choice(self._unseen(scene))
        self._next_id += 1
        return Thing(
            id=self._next_id,
            color=color,
            shape=shape,
            cell=self._random.choice(scene.free_cells),
            size=self._random.randint(42, 54),
            tint=self._tint(color),
            offset=(self._random.uniform(-3, 3), self._random.uniform(-3, 3)),
            sway=self._random.uniform(0, 6.28),
        )
