"""What the world is made of: things, a sign, the light, and the scene they form."""

from __future__ import annotations

from dataclasses import dataclass

CANVAS = 192  # pixels, side of a frame
CELL = 64  # pixels, side of one of the nine places
COLORS: dict[str, tuple[int, int, int]] = {
    "red": (215, 35, 35),
    "orange": (255, 140, 10),
    "yellow": (250, 225, 50),
    "green": (40, 165, 60),
    "blue": (40, 90, 225),
    "purple": (140, 55, 195),
    "pink": (255, 135, 195),
    "white": (245, 245, 245),
}
SHAPES = ("circle", "square", "triangle", "star", "diamond", "cross")
PLACES = (
    "top left", "top", "top right",
    "left", "center", "right",
    "bottom left", "bottom", "bottom right",
)  # fmt: skip
WORDS = ("go", "slow", "stop", "wait")  # what a sign of words shows, always in this order, over and over
MAX_THINGS = 5
DIM = 0.5  # brightness while the lights are down
# Looks that training never shows: one of every shape, of six different colours.
HELD_OUT = frozenset(
    {
        ("red", "star"), ("orange", "cross"), ("yellow", "circle"),
        ("green", "diamond"), ("blue", "triangle"), ("purple", "square"),
    }
)  # fmt: skip


def cell_center(cell: int) -> tuple[float, float]:
    """Pixel (x, y) of the middle of a place."""
    return (cell % 3 + 0.5) * CELL, (cell // 3 + 0.5) * CELL


@dataclass(frozen=True, slots=True)
class Thing:
    """One coloured shape at rest in a place."""

    id: int
    color: str
    shape: str
    cell: int  # index into PLACES
    size: int  # pixels, side of its box
    tint: tuple[int, int, int]  # its exact colour, near COLORS[color]
    offset: tuple[float, float]  # pixels from the middle of its place
    sway: float  # radians, phase of its small endless movement

    def __post_init__(self) -> None:
        if self.color not in COLORS or self.shape not in SHAPES:
            raise ValueError(f"unknown thing {self.color} {self.shape}; colours {list(COLORS)}, shapes {SHAPES}")


@dataclass(frozen=True, slots=True)
class Sign:
    """A plate that shows a number or a word."""

    text: str  # "0" to "99", or one of WORDS
    cell: int  # index into PLACES

    def __post_init__(self) -> None:
        if self.text not in WORDS and not (
            self.text.isdecimal() and str(int(self.text)) == self.text and len(self.text) < 3
        ):
            raise ValueError(f"a sign shows 0 to 99 or one of {WORDS}, got {self.text!r}")

    @property
    def following(self) -> str | None:
        """What a sign of words shows next; None for numbers, which follow no rule."""
        return WORDS[(WORDS.index(self.text) + 1) % len(WORDS)] if self.text in WORDS else None


@dataclass(frozen=True, slots=True)
class Backdrop:
    """A muted two-colour gradient behind everything."""

    first: tuple[int, int, int]
    last: tuple[int, int, int]
    vertical: bool


@dataclass(frozen=True, slots=True)
class Scene:
    """Everything that is true while nothing is happening."""

    things: tuple[Thing, ...]
    sign: Sign | None
    backdrop: Backdrop
    dim: bool = False  # whether the lights are down

    @property
    def free_cells(self) -> list[int]:
        """Places nobody occupies."""
        taken = {thing.cell for thing in self.things}
        if self.sign is not None:
            taken.add(self.sign.cell)
        return [cell for cell in range(len(PLACES)) if cell not in taken]

    def find(self, color: str | None = None, shape: str | None = None) -> list[Thing]:
        """Things of that colour and shape; None means any."""
        return [t for t in self.things if color in (None, t.color) and shape in (None, t.shape)]
