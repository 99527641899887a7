"""The lower part of the figure of a comparison: what each result is, and matrices of agreement."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float64

from apportion_plugins.visualizers import figure as parts
from apportion_plugins.visualizers.canvas import MARGIN, NOTE, Page
from apportion_plugins.visualizers.drawing import Axes, Colormap, ListedColormap, Normalize
from apportion_plugins.visualizers.palette import Ramp, hex_of, text_on

__all__ = ["AgreementPanel", "Matrix"]

CELL, HEAD, BETWEEN, GAP = 0.3, 0.42, 0.3, 0.12
NUMBER = 7.0


@dataclass(frozen=True)
class Matrix:
    """Agreement of each pair of results.

    Attributes:
        title: what is measured.
        cells: a number for each pair, from −1 or 0 to 1; it decides the colour.
        text: gives the text of a cell.
        signed: negative numbers have a meaning.
    """

    title: str
    cells: Float64[np.ndarray, "R R"]
    text: Callable[[float], str]
    signed: bool


@dataclass(frozen=True)
class AgreementPanel:
    """Names, descriptions and matrices, with a row for each result.

    Attributes:
        page: the figure.
        names: numbered names.
        kinds: what each result is.
        matrices: the matrices.
        described: the descriptions stand beside the names.
        stacked: the matrices stand below each other.
    """

    page: Page
    names: Sequence[str]
    kinds: Sequence[str]
    matrices: Sequence[Matrix]
    described: bool = True
    stacked: bool = False

    @property
    def labels(self) -> float:
        """Width of the names in inches."""
        return self.page.width_of(self.names, parts.LABEL) + GAP

    @property
    def side(self) -> float:
        """Width of one matrix in inches, or of its title."""
        titles = self.page.width_of([matrix.title for matrix in self.matrices], NOTE)
        return max(len(self.names) * CELL, titles)

    @property
    def width(self) -> float:
        """Width in inches, margins included."""
        kinds = self.page.width_of(self.kinds, NOTE) + 2 * GAP if self.described else 0.0
        columns = 1 if self.stacked else len(self.matrices)
        return 2 * MARGIN + self.labels + kinds + columns * self.side + (columns - 1) * BETWEEN

    @property
    def height(self) -> float:
        """Height in inches."""
        block = HEAD + len(self.names) * CELL
        return block * (len(self.matrices) if self.stacked else 1) + (BETWEEN if self.stacked else 0.0)

    def draw(self, top: float) -> None:
        """Draw below ``top`` inches."""
        page, n = self.page, len(self.names)
        kinds = page.width_of(self.kinds, NOTE) + 2 * GAP if self.described else 0.0
        first = MARGIN + self.labels + kinds
        for k, matrix in enumerate(self.matrices):
            left = first + (0.0 if self.stacked else k * (self.side + BETWEEN))
            above = top + (k * (HEAD + n * CELL + BETWEEN) if self.stacked else 0.0)
            axes = page.axes(left, above + HEAD, n * CELL, n * CELL)
            _draw_matrix(page, axes, matrix)
            if k == 0 or self.stacked:
                self._label(page.axes(MARGIN, above + HEAD, first - MARGIN, n * CELL), kinds if k == 0 else 0.0)

    def _label(self, axes: Axes, kinds: float) -> None:
        """Write the names on the left of a matrix, and what they are between."""
        width = self.page.width_of_axes(axes)
        axes.set_xlim(0, width)
        axes.set_ylim(len(self.names) - 0.5, -0.5)
        axes.axis("off")
        for row, (name, kind) in enumerate(zip(self.names, self.kinds, strict=True)):
            axes.text(0, row, name, va="center", **self.page.style(parts.LABEL))
            if kinds:
                axes.text(self.labels + GAP, row, kind, va="center", **self.page.style(NOTE))


def _draw_matrix(page: Page, axes: Axes, matrix: Matrix) -> None:
    n = len(matrix.cells)
    ramp, least = (page.ramp, -1.0) if matrix.signed else (page.ramp.of_magnitudes(), 0.0)
    edges = np.arange(n + 1) - 0.5
    shown = np.ma.masked_array(matrix.cells, mask=np.eye(n, dtype=bool))
    axes.pcolormesh(
        edges,
        edges,
        shown,
        cmap=_colours(ramp, least),
        norm=Normalize(least, 1.0),
        edgecolors=axes.get_facecolor(),
        linewidth=0.8,
    )
    axes.set_ylim(n - 0.5, -0.5)
    axes.set_xticks(range(n), [str(i + 1) for i in range(n)], **page.style(NOTE))
    axes.tick_params(axis="x", top=True, labeltop=True, bottom=False, labelbottom=False, length=0, pad=page.points(2.0))
    axes.set_yticks([])
    axes.spines[:].set_visible(False)
    axes.set_title(matrix.title, loc="left", pad=page.points(5.0), **page.style(NOTE))
    for i in range(n):
        for j in range(n):
            if i != j:
                value = float(matrix.cells[i, j])
                ink = hex_of(text_on(ramp.colour(value)))
                place: dict[str, Any] = {"ha": "center", "va": "center_baseline", "color": ink}
                axes.text(j, i, matrix.text(value), **page.style(NUMBER), **place)


def _colours(ramp: Ramp, least: float) -> Colormap:
    steps = [hex_of(ramp.colour(float(s))) for s in np.linspace(least, 1, 257)]
    return ListedColormap(steps).with_extremes(bad="none")
