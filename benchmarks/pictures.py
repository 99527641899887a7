"""Pictures: where attributions point, whether they are faithful, and what fills change.

    make bench-pictures
    .venv/bin/python -m benchmarks.pictures --out benchmarks/results

The model ``shapes`` answers questions about pictures of which it is known which cell decides each word. Pictures are
drawn with a seed; half of them show pairs of things that the model has not seen together in training.
"""

from __future__ import annotations

import argparse
import platform
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import torch

import apportion as ap
from apportion.testing import shapes

FILLS = ("mean", "blur", "noise", "white", "black")
METHODS: Mapping[str, dict[str, Any]] = {
    "ablation": {},
    "permutation": {"budget": 130},
    "gp_shap": {"budget": 130},
    "banzhaf": {"budget": 130},
    "lime": {"budget": 130},
}
COLOURS, KINDS = set(shapes.COLOURS), set(shapes.SHAPES)


@dataclass(frozen=True)
class Case:
    """A picture, a question, and for each word of the answer that names a colour or shape, the cell that decides it."""

    pixels: np.ndarray
    question: str
    answer: str
    cells: Mapping[int, int]


def cases(count: int, seed: int = 2026) -> list[Case]:
    """Pictures of two things: a caption, a question for a colour, and one for a shape, in turn."""
    rng, found = np.random.default_rng(seed), []
    while len(found) < count:
        scene = shapes.random_scene(rng, 2)
        if shapes.held_out(scene) != bool(len(found) % 2):
            continue
        kind = ("caption", "colour", "shape")[len(found) % 3]
        asked = shapes.ask(scene, rng, kind)
        if asked.answer == "nothing" or (kind == "colour" and "describe" in asked.text):
            continue
        found.append(Case(shapes.draw(scene, rng), asked.text, asked.answer, _cells(scene, asked.answer)))
    return found


def _cells(scene: shapes.Scene, answer: str) -> dict[int, int]:
    words, found = answer.split(), {}
    for place, word in enumerate(words):
        if word in COLOURS:
            found[place] = next(thing.cell for thing in scene.things if thing.colour == word)
        elif word in KINDS:
            alike = [thing for thing in scene.things if thing.shape == word]
            named = [thing for thing in alike if place and thing.colour == words[place - 1]]
            if named or len(alike) == 1:
                found[place] = (named or alike)[0].cell
    return found


@dataclass
class Score:
    """Sums over words or pictures."""

    hits: int = 0
    words: int = 0
    overlap: float = 0.0
    deletion: float = 0.0
    insertion: float = 0.0
    pictures: int = 0

    def line(self) -> str:
        """Cells of a table."""
        return (
            f"{self.hits / self.words:.3f} | {self.overlap / self.words:.3f} | {self.deletion / self.pictures:.3f} | "
            f"{self.insertion / self.pictures:.3f} | {self.words}"
        )


def measured(
    explainer: ap.Explainer, given: Sequence[Case], method: str, options: Mapping[str, Any], fill: str
) -> Score:
    """Pointing at the right cell, overlap of the highest cells with it, and deletion and insertion curves."""
    score = Score()
    prompts = [
        {"prompt": ap.ImageText(one.pixels, one.question, fill=fill, text_by=None), "target": f" {one.answer}"}
        for one in given
    ]
    for one, result in zip(given, explainer.attribute_many(prompts, method=method, **options), strict=True):
        for word, cell in one.cells.items():
            values = result.token_values[word]
            score.words += 1
            score.hits += int(values.argmax()) == cell
            marked = set(np.flatnonzero(values >= 0.5 * values.max()).tolist()) if values.max() > 0 else set()
            score.overlap += len(marked & {cell}) / max(1, len(marked | {cell}))
        found = explainer.evaluate(result, ["deletion", "insertion"], random_orders=2)
        score.deletion += found["deletion"].value
        score.insertion += found["insertion"].value
        score.pictures += 1
    return score


class Table:
    """Scores of methods and fills, each measured once.

    Args:
        explainer: of the model ``shapes``.
        given: the pictures.
    """

    HEAD = "| pointing | IoU | deletion | insertion | words |"

    def __init__(self, explainer: ap.Explainer, given: Sequence[Case]) -> None:
        self._explainer, self._given = explainer, given
        self._known: dict[tuple[str, str], Score] = {}

    def score(self, method: str, fill: str) -> Score:
        """The scores of all pictures."""
        key = (method, fill)
        if key not in self._known:
            self._known[key] = measured(self._explainer, self._given, method, METHODS[method], fill)
        return self._known[key]

    def of_methods(self, exact: int) -> Iterator[str]:
        """All methods with the fill ``mean``; exact Shapley values of a few pictures."""
        yield f"| method (fill: mean) {self.HEAD}"
        yield "|---|---|---|---|---|---|"
        for method in METHODS:
            yield f"| {method} | {self.score(method, 'mean').line()} |"
        if exact:
            found = measured(self._explainer, self._given[:exact], "shapley", {"budget": 2**16}, "mean")
            yield f"| shapley (exact), {exact} pictures | {found.line()} |"

    def of_fills(self, method: str) -> Iterator[str]:
        """All fills with one method."""
        yield f"| fill (method: {method}) {self.HEAD}"
        yield "|---|---|---|---|---|---|"
        for fill in FILLS:
            yield f"| {fill} | {self.score(method, fill).line()} |"

    def agreement(self, count: int) -> Iterator[str]:
        """Share of pictures on whose highest cell two fills agree."""
        found = []
        for one in self._given[:count]:
            prompt = ap.ImageText(one.pixels, one.question, text_by=None)
            compared = self._explainer.compare_fills(prompt, f" {one.answer}", fills=FILLS, method="ablation")
            found.append(compared.top_overlap(1))
        yield f"Share of {len(found)} pictures on whose highest cell two fills agree (ablation, whole answer):"
        yield ""
        yield f"| | {' | '.join(FILLS)} |"
        yield f"|---|{'---|' * len(FILLS)}"
        for name, row in zip(FILLS, np.mean(found, axis=0), strict=True):
            yield f"| {name} | {' | '.join(f'{share:.2f}' for share in row)} |"


def pointing(count: int, exact: int) -> Iterator[str]:
    """Tables of methods and of fills."""
    given = cases(count)
    with ap.Explainer("shapes", backend="torch", progress=False) as explainer:
        right = 0
        for one in given:
            found = explainer.attribute(ap.ImageText(one.pixels, one.question, text_by=None), method="ablation")
            right += found.whole_target.split("</s>")[0].strip() == one.answer
        yield f"The model's own answer is right for {right} of {count} pictures; half of them show pairs that it has"
        yield "never seen."
        table = Table(explainer, given)
        for lines in (
            table.of_methods(exact), table.of_fills("ablation"), table.of_fills("permutation"), table.agreement(count)
        ):  # fmt: skip
            yield ""
            yield from lines


def main() -> None:
    """Measure, print and write the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, help="folder for pictures.md")
    parser.add_argument("--pictures", type=int, default=200, help="number of pictures")
    parser.add_argument("--exact", type=int, default=4, help="number of pictures with exact Shapley values")
    given = parser.parse_args()
    packages = ("apportion", "torch", "transformers")
    lines: list[str] = []

    def put(*more: str) -> None:
        for line in more:
            print(line, flush=True)
            lines.append(line)

    put(
        "# Pictures",
        "",
        f"`python -m benchmarks.pictures`: {', '.join(f'{name} {metadata.version(name)}' for name in packages)}; "
        f"Python {platform.python_version()}, {torch.get_num_threads()} threads of a CPU. GPU: not measured.",
        "",
        "Pointing: share of words that name a colour or a shape whose highest cell is the cell of that thing (chance: "
        "1 in 16). IoU: of that cell and those with at least half of the highest value. Deletion (lower is better) and "
        "insertion (higher is better): areas under the curves of the whole answer, in nats.",
        "",
    )
    put(*pointing(given.pictures, given.exact))
    if given.out is not None:
        (given.out / "pictures.md").write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
