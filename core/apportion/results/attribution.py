"""The result of a run: values, their meaning, and their provenance."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Bool, Float64

from apportion.errors import ApportionError, InputError, ResultError, counted, listing, shown, unknown_name
from apportion.files import checked_path
from apportion.phrases import quoted
from apportion.protocols.estimands import EFFICIENT
from apportion.protocols.features import Feature, Segment
from apportion.protocols.pictures import Picture
from apportion.results import result_json
from apportion.results.display import plugins_or_installed
from apportion.results.html_view import HtmlView
from apportion.results.provenance import Provenance
from apportion.results.ranking import TOP, top_size
from apportion.results.recipe import Recipe
from apportion.results.scored import scored_in_words
from apportion.results.tables import columns_of, dataframe

if TYPE_CHECKING:
    import pandas as pd

    from apportion.hooks.manager import Plugins

__all__ = ["Attribution"]

Array = np.ndarray


@dataclass(frozen=True, eq=False, repr=False)
class Attribution:
    """Attribution of a target to the features of a prompt. A feature with a positive value raises the target's score,
    unless the values are magnitudes (``signed``).

    Arrays are float64 NumPy arrays, with F features and T target tokens. For ``log_prob``, values are in nats.

    Attributes:
        features: the features of the prompt; with ``attribute_generated=True``, followed by the target's tokens but
            the last.
        target_tokens: readable text of each target token.
        values: attribution of the whole target to each feature.
        token_values: attribution of each target token, one row per token; NaN throughout if the method scored the
            whole target alone.
        std_error: standard errors of ``values``; ``None`` if the values are exact, NaN where unknown.
        token_std_error: standard errors of ``token_values``.
        top_agreement: for k = 1, …, F, the fraction of bootstrap replicates whose k features of largest magnitude are
            those of ``values``; 1 if the values are exact, ``None`` if standard errors are unknown.
        estimand: name of the quantity that the values estimate, such as ``"Shapley value"``.
        base_value: score of the prompt without any feature; ``None`` if the method did not need it.
        full_value: score of the full prompt; ``None`` if the method did not need it.
        segments: spans of the prompt in order, each with its feature.
        target_text: text of the whole target.
        provenance: model, method, seed, cost and versions.
        extras: additional results of the method; under ``"texts"``, the texts that a target function read, each with
            the features that were present, and its value.
        step_scores: the recorded step scores, by name: a value for each target token; NaN where it is not finite.
        recipe: the arguments of the call, with which a result that was read from a file is evaluated and refined;
            ``None`` in older files.
        plugins: plugins whose visualizers ``plot`` uses; not saved.
        changed: the result was read from a file that was changed after it was saved, so its values and its arguments
            may not belong together: it is shown, but neither evaluated nor refined.
        signed: the sign of a value says whether the feature raises or lowers the score; ``False`` for magnitudes.
        pictures: pictures of the prompt with the regions that are features. A file holds their pixels only if they were
            saved.
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
    step_scores: Mapping[str, Float64[Array, " T"]] = field(default_factory=dict)
    recipe: Recipe | None = field(default=None, repr=False)
    plugins: Plugins | None = field(default=None, repr=False)
    changed: bool = field(default=False, repr=False)
    signed: bool = True
    pictures: tuple[Picture, ...] = ()

    @property
    def feature_names(self) -> tuple[str, ...]:
        """Names of the features, in the order of ``values``."""
        return tuple(feature.name for feature in self.features)

    @property
    def prompt_features(self) -> tuple[Feature, ...]:
        """The features of the prompt, without those of the target."""
        return self.features[self.prompt_part]

    @property
    def generated_features(self) -> tuple[Feature, ...]:
        """The target tokens that are features; none without ``attribute_generated=True``."""
        return self.features[self.generated_part]

    @property
    def prompt_part(self) -> slice:
        """Places of the prompt's features: ``result.values[result.prompt_part]``."""
        return slice(0, sum(feature.generated is None for feature in self.features))

    @property
    def generated_part(self) -> slice:
        """Places of the target's tokens: ``result.token_values[:, result.generated_part]``."""
        return slice(self.prompt_part.stop, len(self.features))

    @property
    def possible(self) -> Bool[Array, "T F"]:
        """Mask of the cells of ``token_values`` that may differ from 0.

        A token of the target cannot affect itself or the tokens before it.
        """
        tokens = range(len(self.target_tokens))
        return np.array([[feature.precedes(t) for feature in self.features] for t in tokens], dtype=bool)

    @property
    def has_token_values(self) -> bool:
        """True if the target's tokens have values of their own, and not only the whole target has."""
        return bool(np.asarray(self.token_values).size) and not bool(np.isnan(self.token_values).all())

    @property
    def whole_target(self) -> str:
        """Text of the whole target; that of its tokens, if it was made without one."""
        return self.target_text or "".join(self.target_tokens)

    @property
    def efficiency_gap(self) -> float | None:
        """``full − base − Σφ``: 0 for exact Shapley and Owen values, up to rounding.

        ``None`` if it has no meaning: the estimand is not efficient, or the full or the empty prompt was not scored.
        """
        if self.estimand not in EFFICIENT or self.base_value is None or self.full_value is None:
            return None
        return self.full_value - self.base_value - float(self.values.sum())

    @property
    def ranking_stable(self) -> float | None:
        """Stability of the top features: the fraction of bootstrap replicates with the same three of largest magnitude.

        With fewer than three features, all of them count. If the third ties with the fourth, only features that are
        clearly ahead count, or more than three if the first ones all tie. ``None`` if standard errors are unknown.
        """
        return None if self.top_agreement is None else float(self.top_agreement[top_size(self.values) - 1])

    @property
    def unit(self) -> str:
        """Unit of ``values``, such as ``"nats"`` or ``"probability"``."""
        return self.provenance.unit

    @property
    def score_unit(self) -> str:
        """Unit of the scores that are explained, such as ``base_value``: ``"nats"`` for ``log_prob``."""
        return self.provenance.score_unit or self.unit

    @property
    def step_units(self) -> Mapping[str, str]:
        """Unit of each step score, by its name."""
        return {name: str(self.provenance.step_scores.get(name, {}).get("unit", "")) for name in self.step_scores}

    def __getitem__(self, name: str) -> float:
        """The attribution of the whole target to one feature: ``result["lawyer"]``.

        Names are those in ``feature_names``: of a text that occurs again, the second is ``"the #2"``. Features are also
        numbered as in the prompt: ``result.values[0]`` is the first one's.

        Raises:
            UnknownNameError: no feature has this name.
            InputError: several features have this name, or it is not a string.
        """
        if not isinstance(name, str):
            raise InputError(
                f"result[{shown(name, 40)}]: give a feature's name, or use result.values[…] for positions."
            )
        places = [i for i, feature in enumerate(self.features) if feature.name == name]
        if not places:
            raise unknown_name("feature", name, self.feature_names)
        if len(places) > 1:
            raise InputError(
                f"{len(places)} features are called {name!r}; use result.values[i] with i one of "
                f"{listing(map(str, places))}."
            )
        return float(self.values[places[0]])

    def __contains__(self, name: object) -> bool:
        return name in self.feature_names

    def to_dataframe(self, rows: str = "features", *, per_token: bool = False) -> pd.DataFrame:
        """Convert to a pandas ``DataFrame``, such as ``result.to_dataframe("tokens")``.

        The column ``std_error`` is 0 where values are exact, and NaN where their errors are unknown.

        Args:
            rows: ``"features"``, one row for each; ``"tokens"``, one row per pair of target token and feature;
                ``"steps"``, one row per target token, with a column for each step score; ``"pairs"``, one row per pair
                of features, for results of ``interactions``; ``"groups"``, one row per group, for results of
                ``hierarchical``; ``"modules"``, one row per pair of module and feature, for results of methods at
                layers; ``"texts"``, one row per text that the model wrote, with the features that were absent, for
                target functions that read texts.
            per_token: the same as ``rows="tokens"``.

        Raises:
            UnknownNameError: there is no such table.
            ResultError: the result has no step scores, pairs, groups, modules or texts, or no values of tokens.
            ApportionError: pandas is not installed.
        """
        with self._readable():
            return dataframe(columns_of(self, "tokens" if per_token and rows == "features" else rows))

    def plot(self, view: str = "heatmap", **options: Any) -> Any:
        """Draw a view of the result.

        Args:
            view: ``"heatmap"`` (features × target tokens), ``"bar"`` (whole target, error bars), ``"html"``,
                ``"terminal"``, ``"matrix"`` and ``"network"`` (for results of ``interactions``), ``"tree"`` (for
                results of ``hierarchical``), ``"layers"`` (for results of methods at layers), or one that a plugin's
                visualizer draws; see ``apportion views``.
            **options: options of the view; unknown ones are rejected.

        Returns:
            The view, which notebooks display: a matplotlib ``Figure``, saved by ``savefig``; an ``HtmlView`` for
            ``"html"``, saved by ``save``; or a rich renderable for ``"terminal"``.

        Raises:
            UnknownNameError: there is no such view.
            InputError: the view has no such option, or does not fit the result, or ``view`` is not a name.
        """
        if not isinstance(view, str):
            raise InputError(f"plot({shown(view)}): give the name of a view, such as 'bar'; see `apportion views`.")
        with self._readable():
            return plugins_or_installed(self.plugins).visualize(view, self, options)

    def show(self) -> None:
        """Print the result in the terminal: the highlighted prompt, a table with bars, and the cost."""
        from rich.console import Console

        Console().print(self.plot("terminal"))

    def save(self, path: str | Path, *, pixels: bool = False) -> Path:
        """Write the result to a JSON file, atomically.

        Args:
            path: path of the file.
            pixels: include the pixels of pictures. Without them, the file holds their sizes and regions, and views need
                the pictures again: ``result.plot("image", images=…)``.

        Raises:
            InputError: ``path`` is not a path.
            ResultError: ``extras`` contain something that JSON cannot represent, or the file cannot be written.
        """
        return result_json.write(self.to_dict(pixels=pixels), checked_path("save", path))

    @classmethod
    def load(cls, path: str | Path) -> Attribution:
        """Read a result that ``save`` wrote.

        Values are equal. Arrays in ``extras`` come back as nested lists, for which ``np.array`` makes arrays again.

        Warns:
            UserWarning: the file was changed after it was saved; the result can be shown, but not evaluated or refined.

        Raises:
            InputError: ``path`` is not a path.
            ResultError: the file is missing, damaged, or has a schema that this version does not know.
        """
        return cls(**result_json.read(checked_path("load", path)))

    def to_dict(self, *, pixels: bool = False) -> dict[str, Any]:
        """Convert to plain Python values, as ``save`` writes them."""
        return result_json.to_dict(self, pixels=pixels)

    def __getstate__(self) -> dict[str, Any]:
        """State for pickling and copying, without ``plugins``, which cannot leave the process."""
        return self.__dict__ | {"plugins": None}

    def to_json(self, *, ascii_only: bool = False) -> str:
        """Convert to JSON, as ``save`` writes it; ``ascii_only`` escapes all other characters.

        Raises:
            ResultError: ``extras`` contain something that JSON cannot represent.
        """
        return result_json.dumps(self.to_dict(), ascii_only=ascii_only)

    @contextmanager
    def _readable(self) -> Iterator[None]:
        """Blame what fails to read a changed result on the change: its extras may hold anything.

        Raises:
            ResultError: the result was changed, and cannot be read.
        """
        try:
            yield
        except ApportionError:
            raise
        except Exception as error:
            if not self.changed:
                raise
            raise ResultError(
                f"The result is damaged: it was changed after it was saved ({type(error).__name__}: {error})."
            ) from error

    def _repr_html_(self) -> str:
        html = self.plot("html")
        if not isinstance(html, str):
            raise ResultError(f"The visualizer 'html' returned {type(html).__name__} instead of a str.")
        return html.fragment if isinstance(html, HtmlView) else html

    def __repr__(self) -> str:
        values, provenance = np.asarray(self.values), self.provenance
        order = np.argsort(-np.nan_to_num(np.abs(values)), kind="stable")[:TOP]
        sign = "+" if self.signed else ""
        top = ", ".join(f"{quoted(self.features[i].name)} {values[i]:{sign}.3g}" for i in order)
        target = quoted(self.whole_target)
        against = "" if provenance.contrast is None else f" against {quoted(provenance.contrast)}"
        model = f" on {quoted(provenance.model)}" if provenance.model else ""
        what = scored_in_words(provenance)
        explained = f"  explained: {what}\n" if what else ""
        return (
            f"Attribution: {self.estimand} of {counted(len(values), 'feature')}, target {target}{against}\n"
            f"{explained}"
            f"  top: {top} ({self.unit})\n"
            f"  {provenance.method}{model}: {counted(provenance.evaluations, 'evaluation')}, {provenance.seconds:.3g} s"
        )
