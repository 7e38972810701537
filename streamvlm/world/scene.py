"""What the world is made of: things, a sign, and the scene they form."""

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
MAX_THINGS = 5


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
    """A plate that shows a number."""

    number: int  # 0-99
    cell: int  # index into PLACES

    def __post_init__(self) -> None:
        if not 0 <= self.number <= 99:
            raise ValueError(f"a sign shows 0 to 99, got {self.number}")


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
