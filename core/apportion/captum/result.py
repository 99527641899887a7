"""The result of an attribution, with its plots."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from apportion.captum.image_input import ImageMaskInput
from apportion.captum.inputs import InterpretableInput
from apportion.captum.refusals import RefusedError, require

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["LLMAttributionResult"]


class LLMAttributionResult:
    """Scores of the features of an input.

    Args:
        input_tokens: labels of the F features.
        output_tokens: labels of the T target tokens.
        seq_attr: scores for the whole target, ``Float[F]``, as a tensor or what becomes one.
        token_attr: scores for each target token, ``Float[T, F]``; ``None`` if the method gives none.
        output_probs: a number for each target token, ``Float[T]``.
        inp: the input.

    Raises:
        AssertionError: a tensor has another shape.
    """

    def __init__(
        self,
        *,
        input_tokens: list[str],
        output_tokens: list[str],
        seq_attr: Any,
        token_attr: Any = None,
        output_probs: Any = None,
        inp: InterpretableInput | None = None,
    ) -> None:
        self.input_tokens, self.output_tokens = input_tokens, output_tokens
        self.seq_attr = seq_attr
        self.token_attr = token_attr
        self.output_probs = output_probs
        self.inp = inp

    def __repr__(self) -> str:
        return f"{type(self).__name__}({len(self.input_tokens)} features, {len(self.output_tokens)} target tokens)"

    @property
    def seq_attr(self) -> Tensor:
        """Scores for the whole target, ``Float[F]``."""
        return self._seq_attr

    @seq_attr.setter
    def seq_attr(self, given: Any) -> None:
        found = torch.as_tensor(given)
        require(found.ndim == 1, "seq_attr must be a 1D tensor")
        require(len(self.input_tokens) == len(found), "seq_attr and input_tokens must have the same length")
        self._seq_attr = found

    @property
    def token_attr(self) -> Tensor | None:
        """Scores for each target token, ``Float[T, F]``."""
        return self._token_attr

    @token_attr.setter
    def token_attr(self, given: Any) -> None:
        found = None if given is None else torch.as_tensor(given)
        wanted = (len(self.output_tokens), len(self.input_tokens))
        if found is not None:
            require(found.ndim == 2, "token_attr must be a 2D tensor")
            require(tuple(found.shape) == wanted, f"Expect token_attr to have shape {wanted}, got {tuple(found.shape)}")
        self._token_attr = found

    @property
    def output_probs(self) -> Tensor | None:
        """A number for each target token, ``Float[T]``."""
        return self._output_probs

    @output_probs.setter
    def output_probs(self, given: Any) -> None:
        found = None if given is None else torch.as_tensor(given)
        if found is not None:
            require(found.ndim == 1, "output_probs must be a 1D tensor")
            require(len(self.output_tokens) == len(found), "output_probs and output_tokens must have the same length")
        self._output_probs = found

    @property
    def seq_attr_dict(self) -> dict[str, float]:
        """Scores for the whole target by label; of features with the same label, the last one."""
        return dict(zip(self.input_tokens, self.seq_attr.tolist(), strict=True))

    def plot_token_attr(self, show: bool = False) -> tuple[Figure, Axes] | None:
        """Draw the scores for each target token as a heat map.

        Args:
            show: show the figure, and return nothing.

        Raises:
            ValueError: there are no scores for tokens.
        """
        from apportion.captum.plots import draw_tokens

        if self.token_attr is None:
            raise RefusedError(
                "token_attr is None (no token-level attribution was performed), please use plot_seq_attr instead for "
                "the sequence-level attribution plot"
            )
        return draw_tokens(self.token_attr, self.input_tokens, self.output_tokens, show=show)

    def plot_seq_attr(self, show: bool = False) -> tuple[Figure, Axes] | None:
        """Draw the scores for the whole target as bars.

        Args:
            show: show the figure, and return nothing.
        """
        from apportion.captum.plots import draw_sequence

        return draw_sequence(self.seq_attr, self.input_tokens, show=show)

    def plot_image_heatmap(
        self,
        show: bool = False,
        target_token_pos: int | tuple[int, int] | None = None,
        border_width: int = 2,
        show_legends: bool = True,
    ) -> tuple[Figure, Axes] | None:
        """Draw the scores over the image.

        Args:
            show: show the figure, and return nothing.
            target_token_pos: a target token; a range ``(m, n)`` of tokens, without n, whose scores are summed; or
                ``None`` for the whole target.
            border_width: width of the borders of segments, in pixels; 0 for none.
            show_legends: write each segment's number at its centre.

        Raises:
            ValueError: the input is not an ``ImageMaskInput``, or there are no scores for tokens.
        """
        from apportion.captum.plots import draw_heatmap

        inp = self.inp
        if not isinstance(inp, ImageMaskInput):
            raise RefusedError("plot_image_heatmap is only available for ImageMaskInput")
        pixels = inp.format_pixel_attr(self._scores_at(target_token_pos)[None])[0]
        return draw_heatmap(
            inp.image, pixels, inp.segments, show=show, border_width=border_width, show_legends=show_legends
        )

    def _scores_at(self, position: int | tuple[int, int] | None) -> Tensor:
        """Scores for a target token, for a range of them, or for the whole target."""
        if position is None:
            return self.seq_attr
        if self.token_attr is None:
            raise RefusedError(
                "token_attr is None (no token-level attribution was performed), please use target_token_pos=None for "
                "sequence-level attribution"
            )
        return self.token_attr[position] if isinstance(position, int) else self.token_attr[slice(*position)].sum(0)
