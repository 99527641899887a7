"""Pictures of coloured shapes on a 4×4 grid, and questions about them: it is known which cell decides each answer."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
from jaxtyping import Bool, UInt8

from apportion.errors import listing

__all__ = [
    "CELL",
    "COLOURS",
    "GRID",
    "PICTURE",
    "SHAPES",
    "WORDS",
    "Question",
    "Scene",
    "Thing",
    "ask",
    "draw",
    "held_out",
    "random_scene",
]

GRID = 4
"""Cells of a picture in each direction."""
CELL = 16
"""Pixels of a cell in each direction."""
PICTURE = GRID * CELL
"""Pixels of a picture in each direction."""
BACKGROUND = (128, 128, 128)
COLOURS = {"red": (220, 40, 40), "green": (40, 180, 60), "blue": (50, 70, 220), "yellow": (230, 210, 50)}
SHAPES = ("circle", "square", "triangle")
RELATIONS = {"left": "left of", "right": "right of", "above": "above", "below": "below"}
WORDS = (
    *"a the is of what colour shape thing left right above below describe picture nothing ? .".split(),  # noqa: SIM905
    *COLOURS,
    *SHAPES,
)
"""All words of questions and answers."""
KINDS = {"caption": 0.35, "relation": 0.35, "colour": 0.15, "shape": 0.15}
"""Kinds of questions, and how often each is asked."""


@dataclass(frozen=True, slots=True)
class Thing:
    """A coloured shape in a cell of the grid."""

    colour: str
    shape: str
    row: int
    column: int

    @property
    def name(self) -> str:
        """Colour and shape."""
        return f"{self.colour} {self.shape}"

    @property
    def cell(self) -> int:
        """Number of the cell, row by row."""
        return self.row * GRID + self.column

    def relation_to(self, other: Thing) -> str:
        """Direction in which it lies, seen from another thing: ``"left"``, ``"right"``, ``"above"`` or ``"below"``."""
        down, right = self.row - other.row, self.column - other.column
        if abs(right) > abs(down):
            return "left" if right < 0 else "right"
        return "above" if down < 0 else "below"


@dataclass(frozen=True, slots=True)
class Scene:
    """The things in a picture: none, one, or two that do not lie on a common diagonal."""

    things: tuple[Thing, ...]

    @property
    def caption(self) -> str:
        """The sentence that describes it: ``"a red circle left of a blue square"``."""
        if not self.things:
            return "nothing"
        if len(self.things) == 1:
            return f"a {self.things[0].name}"
        first, second = self.things
        if first.relation_to(second) in ("right", "below"):
            first, second = second, first
        return f"a {first.name} {RELATIONS[first.relation_to(second)]} a {second.name}"


@dataclass(frozen=True, slots=True)
class Question:
    """A question about a scene, and its answer."""

    text: str
    answer: str


def random_scene(rng: np.random.Generator, things: int | None = None) -> Scene:
    """Draw a scene whose things have different colours.

    Args:
        rng: draws it.
        things: number of things; ``None`` for two mostly.
    """
    if things is None:
        things = int(rng.choice([2, 1, 0], p=[0.80, 0.17, 0.03]))
    colours = rng.permutation(list(COLOURS))[:things]
    while True:
        cells = [divmod(int(cell), GRID) for cell in rng.permutation(GRID * GRID)[:things]]
        # On a common diagonal, a thing is as much above another one as it is beside it.
        if things < 2 or abs(cells[0][0] - cells[1][0]) != abs(cells[0][1] - cells[1][1]):
            break
    shapes = rng.integers(len(SHAPES), size=things)
    return Scene(
        tuple(
            Thing(str(colour), SHAPES[shape], *cell) for colour, shape, cell in zip(colours, shapes, cells, strict=True)
        )
    )


def held_out(scene: Scene) -> bool:
    """True if the model ``shapes`` has never seen these two things together in training."""
    if len(scene.things) != 2:
        return False
    low, high = sorted(list(COLOURS).index(t.colour) * len(SHAPES) + SHAPES.index(t.shape) for t in scene.things)
    return (low * 7 + high * 5) % 11 == 0


def draw(scene: Scene, rng: np.random.Generator, noise: float = 4.0) -> UInt8[np.ndarray, "64 64 3"]:
    """Draw a scene: sizes, places within cells, tints and noise are random.

    Args:
        scene: the scene.
        rng: draws the random parts.
        noise: standard deviation of the noise, of 255.
    """
    image = np.empty((PICTURE, PICTURE, 3), np.float32)
    image[:] = BACKGROUND
    for thing in scene.things:
        inside = _outlines()[SHAPES.index(thing.shape), rng.integers(2), rng.integers(3), rng.integers(3)]
        rows, columns = (slice(place * CELL, (place + 1) * CELL) for place in (thing.row, thing.column))
        image[rows, columns][inside] = np.asarray(COLOURS[thing.colour], np.float32) + rng.normal(0, 8, 3)
    image += rng.normal(0, noise, image.shape)
    found: UInt8[np.ndarray, "64 64 3"] = image.clip(0, 255).astype(np.uint8)
    return found


def ask(scene: Scene, rng: np.random.Generator, kind: str | None = None) -> Question:
    """Ask a question about a scene.

    Args:
        scene: the scene.
        rng: draws the question.
        kind: ``"caption"``, ``"relation"``, ``"colour"`` or ``"shape"``; ``None`` for a random one.
    """
    kind = kind or str(rng.choice(list(KINDS), p=list(KINDS.values())))
    if kind == "caption":
        return Question("describe the picture .", scene.caption)
    if kind == "relation":
        return _relation(scene, rng)
    if kind == "colour":
        return _colour(scene, rng)
    if kind == "shape":
        return _shape(scene, rng)
    raise ValueError(f"There is no kind of question {kind!r}; there are {listing(KINDS)}.")


def _relation(scene: Scene, rng: np.random.Generator) -> Question:
    if scene.things and rng.random() < 0.93:
        which = int(rng.integers(len(scene.things)))
        one = scene.things[which]
        other = scene.things[1 - which] if len(scene.things) == 2 else None
        true = other.relation_to(one) if other is not None else None
        asked = true if true is not None and rng.random() < 0.65 else str(rng.choice(list(RELATIONS)))
        answer = f"a {other.name}" if other is not None and true == asked else "nothing"
        return Question(f"what is {RELATIONS[asked]} the {one.name} ?", answer)
    absent = f"{rng.choice(list(COLOURS))} {rng.choice(SHAPES)}"
    if any(thing.name == absent for thing in scene.things):
        return _relation(scene, rng)
    return Question(f"what is {RELATIONS[str(rng.choice(list(RELATIONS)))]} the {absent} ?", "nothing")


def _colour(scene: Scene, rng: np.random.Generator) -> Question:
    there = scene.things and rng.random() < 0.9
    shape = scene.things[rng.integers(len(scene.things))].shape if there else str(rng.choice(SHAPES))
    meant = [thing for thing in scene.things if thing.shape == shape]
    if len(meant) == 2:
        return ask(scene, rng, "caption")
    return Question(f"what colour is the {shape} ?", meant[0].colour if meant else "nothing")


def _shape(scene: Scene, rng: np.random.Generator) -> Question:
    there = scene.things and rng.random() < 0.9
    colour = scene.things[rng.integers(len(scene.things))].colour if there else str(rng.choice(list(COLOURS)))
    meant = [thing for thing in scene.things if thing.colour == colour]
    return Question(f"what shape is the {colour} thing ?", meant[0].shape if meant else "nothing")


@cache
def _outlines() -> Bool[np.ndarray, "3 2 3 3 16 16"]:
    """The pixels of each shape in a cell, by size and place."""
    return np.array(
        [
            [[[_inside(shape, radius, x, y) for x in (-1, 0, 1)] for y in (-1, 0, 1)] for radius in (5.0, 6.0)]
            for shape in SHAPES
        ]
    )


def _inside(shape: str, radius: float, right: int, down: int) -> Bool[np.ndarray, "16 16"]:
    y, x = np.mgrid[0:CELL, 0:CELL] + 0.5 - CELL / 2
    x, y = x - right, y - down
    if shape == "circle":
        return np.asarray(x * x + y * y <= radius * radius)
    if shape == "square":
        return np.asarray((abs(x) <= radius * 0.88) & (abs(y) <= radius * 0.88))
    return np.asarray((abs(y) <= radius * 0.9) & (abs(x) <= (y + radius * 0.9) * 0.55))
