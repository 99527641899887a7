"""Values of model inputs from the texts that the model writes after them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from apportion.errors import ApportionError, PluginError, ScoreError, counted, shown
from apportion.protocols.row import ModelInput
from apportion.protocols.targets import Scores, Target, TargetFunction
from apportion.scoring.noise import columns_of
from apportion.scoring.readout import check_shape
from apportion.scoring.text_source import TextSource
from apportion.scoring.writer import text_key

__all__ = ["TextScorer"]


class TextScorer:
    """Scores distinct model inputs: a target function gives each text a value.

    Args:
        source: gives the texts.
        target: what texts are compared with.
        target_fn: gives texts their values; asked once about each distinct text.
        samples: number of texts after each prompt.
        values: values of texts that are known; new ones are added.
    """

    def __init__(
        self, source: TextSource, target: Target, target_fn: TargetFunction, samples: int, values: dict[str, float]
    ) -> None:
        self.source, self.samples = source, samples
        self._target, self._target_fn, self._values = target, target_fn, values

    def __call__(self, inputs: Sequence[ModelInput]) -> Float[Tensor, "N K"]:
        """Values of distinct inputs, in order, float64 on the CPU; with several samples, columns of noise follow them.

        Raises:
            ScoreError: the value of a text is not finite.
            PluginError: the target function failed, or returned another shape.
            InputError, CapabilityError, ServerError: as ``TextSource.written``.
        """
        each = self.source.written(inputs, range(self.samples))
        self.find_values(list(dict.fromkeys(text for some in each for text in some)))
        table = torch.tensor([[self._values[text] for text in some] for some in each], dtype=torch.float64)
        return columns_of(table, [text_key(item) for item in inputs])

    def find_values(self, texts: Sequence[str]) -> None:
        """Ask the target function about texts whose values are not known.

        Raises:
            ScoreError, PluginError: as for scoring.
        """
        new = tuple(text for text in texts if text not in self._values)
        if not new:
            return
        name = type(self._target_fn).__name__
        try:
            found = self._target_fn(Scores(texts=new), self._target)
        except ApportionError:
            raise
        except Exception as error:
            raise PluginError(
                f"The target function {name} failed on {counted(len(new), 'text')}, the first of them {shown(new[0])}: "
                f"{type(error).__name__}: {error}"
            ) from error
        check_shape(f"the target function {name}", found, (len(new), 1))
        for text, value in zip(new, found[:, 0].double().tolist(), strict=True):
            if not abs(value) < float("inf"):
                raise ScoreError(
                    f"The value of a text is not finite: the target function {name} gave {value} for {shown(text)}."
                )
            self._values[text] = value
