"""Plots of results, with the arguments and return values of Captum's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from textwrap import shorten
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float
from torch import Tensor

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.colors import Colormap
    from matplotlib.figure import Figure
    from PIL.Image import Image

__all__ = ["draw_heatmap", "draw_segments", "draw_sequence", "draw_tokens"]

Segments = Mapping[int, Tensor]
"""Masks ``Bool[H, W]`` of features, by number."""
LOWERS, NEUTRAL, RAISES = "#2f6fab", "#f7f7f5", "#c8590b"
"""Colours that colour-blind readers can tell apart."""
INK, FAINT = "#222222", "#8a8a8a"
LONGEST_LABEL = 32
CELL = (0.72, 0.34)
"""Least width and height of a cell of the heat map, in inches."""
MOST_CELLS_WITH_NUMBERS = 2_000


def draw_tokens(
    scores: Float[Tensor, "T F"], input_tokens: Sequence[str], output_tokens: Sequence[str], *, show: bool
) -> tuple[Figure, Axes] | None:
    """The heat map of ``plot_token_attr``."""
    import matplotlib.pyplot as plt

    values = scores.detach().float().cpu().numpy()
    rows, columns = values.shape
    limit = float(np.abs(values).max()) or 1.0
    above, beside = labels(input_tokens), labels(output_tokens)
    size = (max(6.4, columns * CELL[0] + 2.4), max(3.2, rows * CELL[1] + 1.6))
    fig, ax = plt.subplots(figsize=size, facecolor="white", layout="constrained")
    image = ax.imshow(values, cmap=colours(), vmin=-limit, vmax=limit, aspect="auto")
    bar = fig.colorbar(image, ax=ax, pad=0.015, aspect=30)
    bar.ax.set_ylabel("Token attribution", rotation=-90, va="bottom", color=INK)
    bar.outline.set_visible(False)
    ax.set_xticks(range(columns), labels=above)
    ax.set_yticks(range(rows), labels=beside)
    label_columns(ax, above)
    ax.grid(False)
    ax.set_xticks(np.arange(columns + 1) - 0.5, minor=True)
    ax.set_yticks(np.arange(rows + 1) - 0.5, minor=True)
    ax.grid(which="minor", color="white", linewidth=1)
    ax.tick_params(which="both", length=0)
    for side in ax.spines.values():
        side.set_visible(False)
    if values.size <= MOST_CELLS_WITH_NUMBERS:
        for row, column in np.ndindex(rows, columns):
            strong = abs(values[row, column]) > 0.6 * limit
            ax.text(
                column, row, number(float(values[row, column]), limit), ha="center", va="center", fontsize=8,
                color="white" if strong else INK,
            )  # fmt: skip
    return shown(fig, ax, show=show)


def draw_sequence(
    scores: Float[Tensor, " F"], input_tokens: Sequence[str], *, show: bool
) -> tuple[Figure, Axes] | None:
    """The bars of ``plot_seq_attr``."""
    import matplotlib.pyplot as plt

    values = scores.detach().float().cpu().numpy()
    names = labels(input_tokens)
    size = (max(6.4, len(values) * 0.5), 4.8)
    fig, ax = plt.subplots(figsize=size, facecolor="white", layout="constrained")
    ax.bar(range(len(values)), values, color=[RAISES if value > 0 else LOWERS for value in values], width=0.7)
    ax.axhline(0, color=FAINT, linewidth=0.8)
    ax.set_xticks(range(len(values)), labels=names)
    label_columns(ax, names)
    ax.tick_params(axis="x", length=0)
    ax.set_ylabel("Sequence attribution", color=INK)
    ax.grid(axis="y", color="#e6e6e6", linewidth=0.8)
    ax.set_axisbelow(True)
    for side in ("top", "right", "bottom"):
        ax.spines[side].set_visible(False)
    return shown(fig, ax, show=show)


def draw_heatmap(
    image: Image,
    scores: Float[Tensor, "H W"],
    segments: Segments,
    *,
    show: bool,
    border_width: int,
    show_legends: bool,
) -> tuple[Figure, Axes] | None:
    """The image with its scores of ``plot_image_heatmap``."""
    import matplotlib.pyplot as plt

    pixels = scores.detach().float().cpu().numpy()
    limit = float(np.abs(pixels).max()) or 1.0
    fig, ax = plt.subplots(facecolor="white", layout="constrained")
    grey = np.array(image.convert("L"))
    ax.imshow(grey, cmap="gray", vmin=0, vmax=255)
    heat = ax.imshow(pixels, cmap=colours(), vmin=-limit, vmax=limit, alpha=0.7)
    bar = fig.colorbar(heat, ax=ax, pad=0.015, aspect=30)
    bar.ax.set_ylabel("Attribution", rotation=-90, va="bottom", color=INK)
    bar.outline.set_visible(False)
    outline(ax, segments, border_width, show_legends=show_legends)
    return shown(fig, ax, show=show)


def draw_segments(
    image: Image, segments: Segments, *, show: bool, border_width: int, show_legends: bool
) -> tuple[Figure, Axes] | None:
    """The segments of ``plot_mask_overlay``."""
    import matplotlib as mpl
    import matplotlib.pyplot as plt

    fig, ax = plt.subplots(facecolor="white", layout="constrained")
    ax.imshow(image)
    palette = mpl.colormaps["tab10"].colors  # type: ignore[attr-defined]
    for index, mask in enumerate(segments.values()):
        layer = np.zeros((*mask.shape, 4))
        layer[mask.bool().cpu().numpy()] = (*palette[index % len(palette)], 0.5)
        ax.imshow(layer)
    outline(ax, segments, border_width, show_legends=show_legends)
    return shown(fig, ax, show=show)


def outline(ax: Axes, segments: Segments, border_width: int, *, show_legends: bool) -> None:
    """Draw borders and numbers of segments, and no axes."""
    for segment, mask in segments.items():
        inside = mask.bool().cpu().numpy()
        if not inside.any():
            continue
        if border_width > 0 and not inside.all():
            ax.contour(inside, levels=[0.5], colors=[INK], linewidths=border_width, alpha=0.8)
        if show_legends:
            rows, columns = np.nonzero(inside)
            box = {"facecolor": "white", "alpha": 0.8, "edgecolor": "none", "boxstyle": "round,pad=0.2"}
            ax.text(columns.mean(), rows.mean(), str(segment), ha="center", va="center", color=INK, bbox=box)
    ax.axis("off")


def labels(texts: Sequence[Any]) -> list[str]:
    """Labels of one line, with escapes for line breaks and the like; dollar signs do not start mathematics."""
    one_line = (
        str(text).encode("unicode_escape").decode() if not str(text).isprintable() else str(text) for text in texts
    )
    spaced = (text.replace("Ġ", " ").replace("▁", " ").strip() or repr(text)[1:-1] for text in one_line)
    return [shorten(text, LONGEST_LABEL, placeholder="…").replace("$", r"\$") for text in spaced]


def label_columns(ax: Axes, names: Sequence[str]) -> None:
    """Put labels above, slanted if one of them is long."""
    ax.tick_params(axis="x", top=False, bottom=False, labeltop=True, labelbottom=False)
    if max(map(len, names), default=0) > 6:
        for text in ax.get_xticklabels():
            text.set(rotation=40, ha="left", rotation_mode="anchor")


def number(value: float, limit: float) -> str:
    """A score with as many decimals as the largest one needs."""
    decimals = 2 if limit >= 1 else 3 if limit >= 0.1 else 4
    return f"{value:.{decimals}f}" if abs(value) >= 10**-decimals / 2 else "0"


def colours() -> Colormap:
    """The colours of scores, from those that lower the target's score to those that raise it."""
    from matplotlib.colors import LinearSegmentedColormap

    return LinearSegmentedColormap.from_list("lowers-raises", [LOWERS, NEUTRAL, RAISES])


def shown(fig: Figure, ax: Axes, *, show: bool) -> tuple[Figure, Axes] | None:
    """The figure, or nothing once it was shown."""
    if not show:
        return fig, ax
    import matplotlib.pyplot as plt

    plt.show()
    return None
