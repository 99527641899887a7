"""The result: numbers, their meaning, and where they come from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float64

from apportion.errors import ResultError
from apportion.protocols.features import Feature, Segment
from apportion.results import result_json
from apportion.results.provenance import Provenance
from apportion.results.ranking import top_size
from apportion.results.tables import dataframe

if TYPE_CHECKING:
    import pandas as pd

    from apportion.hooks.manager import Plugins

__all__ = ["Attribution"]

Array = np.ndarray

EFFICIENT = ("Shapley value", "Owen value")
"""Estimands whose values add up to the difference between the full and the empty prompt."""


@dataclass(frozen=True, eq=False)
class Attribution:
    """How much each feature of a prompt contributed to a target. Positive raises the target's score.

    All numbers are float64 NumPy arrays; F features, T target tokens. In nats for ``log_prob``.

    Attributes:
        features: what was perturbed.
        target_tokens: a readable text for each target token.
        values: attribution of the whole target to each feature.
        token_values: one row for each target token.
        std_error: standard errors of ``values``; ``None`` when they are exact, NaN where unknown.
        token_std_error: the same for ``token_values``.
        top_agreement: for k = 1, …, F the share of bootstrap replicates whose k features of largest magnitude are
            those of ``values``; 1 where values are exact, ``None`` where standard errors are unknown.
        estimand: what the values estimate, such as ``"Shapley value"``.
        base_value: score of the prompt without any feature; ``None`` if the method did not need it.
        full_value: score of the prompt as given; ``None`` if the method did not need it.
        segments: the prompt in order, with the feature of each stretch.
        target_text: the target in one piece.
        provenance: model, method, seed, cost, versions.
        extras: whatever else the method reports.
        plugins: where ``plot`` finds visualizers; not saved.
    """

    features: tuple[Feature, ...]
    target_tokens: tuple[str, ...]
    values: Float64[Array, " F"]
    token_values: Float64[Array, "T F"]
    estimand: str
    provenance: Provenance
    std_error: Float64[Array, " F"] | None = None
    token_std_error: Float64[Array, "T F"] | None = None
    base_value: float | None = None
    full_value: float | None = None
    segments: tuple[Segment, ...] = ()
    target_text: str = ""
    extras: Mapping[str, Any] = field(default_factory=dict)
    top_agreement: Float64[Array, " F"] | None = None
    plugins: Plugins | None = field(default=None, repr=False)

    @property
    def feature_names(self) -> tuple[str, ...]:
        """The features' names, in the order of ``values``."""
        return tuple(feature.name for feature in self.features)

    @property
    def efficiency_gap(self) -> float | None:
        """``full − base − Σφ``: 0 for exact Shapley and Owen values, up to rounding.

        ``None`` where it says nothing: the estimand does not promise efficiency, or the two ends were
        not scored.
        """
        if self.estimand not in EFFICIENT or self.base_value is None or self.full_value is None:
            return None
        return self.full_value - self.base_value - float(self.values.sum())

    @property
    def ranking_stable(self) -> float | None:
        """How sure the top is: the share of bootstrap replicates with the same three features of largest magnitude.

        Of as many features as there are, where there are fewer. Where the third ties with the fourth, the top is what
        stands clear: fewer features, or more where all of them tie. ``None`` where it is unknown.
        """
        return None if self.top_agreement is None else float(self.top_agreement[top_size(self.values) - 1])

    @property
    def unit(self) -> str:
        """What one unit of ``values`` is, such as ``"nats"`` or ``"probability"``."""
        return self.provenance.unit

    def to_dataframe(self, *, per_token: bool = False) -> pd.DataFrame:
        """A pandas table.

        Args:
            per_token: one row for each pair of target token and feature, instead of one for each feature.

        Raises:
            ApportionError: pandas is not installed.
        """
        n, t = len(self.features), len(self.target_tokens)
        if not per_token:
            return dataframe(
                {
                    "feature": self.feature_names,
                    "text": [feature.text for feature in self.features],
                    "attribution": self.values,
                    "std_error": np.zeros(n) if self.std_error is None else self.std_error,
                }
            )
        errors = np.zeros((t, n)) if self.token_std_error is None else self.token_std_error
        return dataframe(
            {
                "position": np.repeat(np.arange(t), n),
                "token": np.repeat(np.array(self.target_tokens, dtype=object), n),
                "feature": list(self.feature_names) * t,
                "attribution": self.token_values.ravel(),
                "std_error": errors.ravel(),
            }
        )

    def plot(self, kind: str = "heatmap", **options: Any) -> Any:
        """A picture by a registered visualizer.

        Args:
            kind: ``"heatmap"`` (features × target tokens), ``"bar"`` (whole target, error bars), ``"html"``,
                ``"terminal"``, ``"matrix"`` and ``"network"`` (results of ``interactions``), ``"tree"`` (of
                ``hierarchical``), or what a plugin adds; see ``apportion views``.
            **options: of the visualizer; unknown ones are refused.

        Returns:
            What the visualizer makes: a matplotlib ``Figure`` for ``"heatmap"`` and ``"bar"``.

        Raises:
            UnknownNameError: no visualizer of that name.
            InputError: an option that the visualizer does not have.
        """
        from apportion.hooks.manager import installed_plugins

        return (self.plugins or installed_plugins()).visualize(kind, self, options)

    def show(self) -> None:
        """Print it in the terminal: the coloured prompt, a table with bars, and what it cost."""
        from rich.console import Console

        Console().print(self.plot("terminal"))

    def save(self, path: str | Path) -> Path:
        """Write it as JSON, whole or not at all.

        Raises:
            ResultError: ``extras`` hold something that JSON cannot, or the file cannot be written.
        """
        return result_json.write(self.to_dict(), Path(path))

    @classmethod
    def load(cls, path: str | Path) -> Attribution:
        """Read what ``save`` wrote.

        Raises:
            ResultError: the file is missing, damaged, or of a schema this version does not know.
        """
        return cls(**result_json.read(Path(path)))

    def to_dict(self) -> dict[str, Any]:
        """What ``save`` writes, as plain Python values."""
        return result_json.to_dict(self)

    def __getstate__(self) -> dict[str, Any]:
        """For pickling and copying: everything but ``plugins``, which belong to a process."""
        return self.__dict__ | {"plugins": None}

    def to_json(self, *, ascii_only: bool = False) -> str:
        """The text that ``save`` writes; ``ascii_only`` escapes all other characters.

        Raises:
            ResultError: ``extras`` hold something that JSON cannot.
        """
        return result_json.dumps(self.to_dict(), ascii_only=ascii_only)

    def _repr_html_(self) -> str:
        html = self.plot("html")
        if not isinstance(html, str):
            raise ResultError(f"The visualizer 'html' returned {type(html).__name__} instead of a str.")
        return html
