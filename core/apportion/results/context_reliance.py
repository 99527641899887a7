"""Context reliance: the output tokens that depend on the context, and the parts of it that each of them relies on."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Bool, Float64

from apportion.errors import InputError, ResultError, counted
from apportion.files import checked_path, read_text
from apportion.phrases import quoted
from apportion.protocols.features import Feature
from apportion.results import result_json
from apportion.results.attribution import Attribution
from apportion.results.display import as_html, print_view
from apportion.results.finding import finding
from apportion.results.html_view import HtmlView
from apportion.results.outliers import outlier_threshold, outliers
from apportion.results.result_json import plain
from apportion.results.tables import dataframe

if TYPE_CHECKING:
    import pandas as pd

    from apportion.hooks.manager import Plugins

__all__ = ["ContextReliance", "ContextualCue", "SensitiveToken"]

SCHEMA, SCHEMA_VERSION = "apportion.context_reliance", 1
RENDER = "render_context_reliance"
SHOWN = 3

Array = np.ndarray


@dataclass(frozen=True, slots=True)
class ContextualCue:
    """A feature of the context that an output token relies on.

    Attributes:
        feature: the feature.
        index: its position among the features of the attribution.
        value: its attribution, in the unit of ``attribution``.
    """

    feature: Feature
    index: int
    value: float


@dataclass(frozen=True, slots=True)
class SensitiveToken:
    """An output token that depends on the context.

    Attributes:
        position: its position in the output.
        text: its text.
        score: value of the metric.
        contextless: the token that the model would say here without the context; often the same one.
        probability: probability of the token with the context.
        contextless_probability: its probability without the context.
        cues: the features that it relies on, the strongest first.
    """

    position: int
    text: str
    score: float
    contextless: str
    probability: float
    contextless_probability: float
    cues: tuple[ContextualCue, ...]


@dataclass(frozen=True, eq=False, repr=False)
class ContextReliance:
    """The output tokens that depend on the context, and the contextual cues that each relies on (Sarti et al. 2024).

    Arrays have one value for each of the T output tokens.

    Attributes:
        attribution: attribution of the context-sensitive tokens to the features of the context. Its ``token_values``
            have a row for each output token, which is 0 for tokens that do not depend on the context; its ``values``
            are their sum.
        metric: name of the metric, under which the attribution's ``step_scores`` have its values.
        sensitive: true for the tokens that depend on the context.
        contextless_tokens: the token that the model would say in each place without the context, after the same output
            so far.
        probabilities: probability of each output token with the context.
        contextless_probabilities: its probability without the context.
        deviations: standard deviations above the mean from which a token counts as sensitive; ``None`` for no
            threshold.
        most_tokens: maximum number of sensitive tokens; ``None`` for no limit.
        cue_deviations: the same threshold for the cues of each token.
        most_cues: maximum number of cues of each token.
        plugins: plugins that provide views; not saved.
    """

    attribution: Attribution
    metric: str
    sensitive: Bool[Array, " T"]
    contextless_tokens: tuple[str, ...]
    probabilities: Float64[Array, " T"]
    contextless_probabilities: Float64[Array, " T"]
    deviations: float | None = 1.0
    most_tokens: int | None = None
    cue_deviations: float | None = 1.0
    most_cues: int | None = None
    plugins: Plugins | None = field(default=None, repr=False)

    @property
    def tokens(self) -> tuple[str, ...]:
        """Text of each output token."""
        return self.attribution.target_tokens

    @property
    def scores(self) -> Float64[Array, " T"]:
        """Value of the metric at each output token, in ``unit``."""
        return self.attribution.step_scores[self.metric]

    @property
    def unit(self) -> str:
        """Unit of ``scores``."""
        return self.attribution.step_units[self.metric]

    @property
    def threshold(self) -> float:
        """The magnitude of ``scores`` from which a token counts as sensitive."""
        return outlier_threshold(np.nan_to_num(self.scores), self.deviations)

    @property
    def finding(self) -> str:
        """Number of tokens that depend on the context; if none stands out, the largest score and the threshold."""
        return finding(self.scores, self.sensitive, self.deviations, self.metric, self.unit)

    @property
    def sensitive_tokens(self) -> tuple[SensitiveToken, ...]:
        """The tokens that depend on the context, in order, each with its cues."""
        return tuple(self._token(position) for position in np.flatnonzero(self.sensitive).tolist())

    def _token(self, position: int) -> SensitiveToken:
        row = self.attribution.token_values[position]
        chosen = np.flatnonzero(outliers(row, self.cue_deviations, self.most_cues))
        order = chosen[np.argsort(-np.abs(row[chosen]), kind="stable")].tolist()
        return SensitiveToken(
            position,
            self.tokens[position],
            float(self.scores[position]),
            self.contextless_tokens[position],
            float(self.probabilities[position]),
            float(self.contextless_probabilities[position]),
            tuple(ContextualCue(self.attribution.features[i], i, float(row[i])) for i in order),
        )

    def show(self) -> None:
        """Print the output, the context and the cues of each sensitive token in the terminal."""
        print_view(self.plugins, RENDER, self)

    def to_html(self) -> HtmlView:
        """Convert to HTML: output and context with their links, which notebooks display and ``save`` writes."""
        return as_html(self.plugins, RENDER, self)

    def to_dataframe(self) -> pd.DataFrame:
        """Convert to a pandas ``DataFrame``, one row per sensitive token and feature of the context.

        Raises:
            ApportionError: pandas is not installed.
        """
        positions, n = np.flatnonzero(self.sensitive), len(self.attribution.features)
        cues = {(token.position, cue.index) for token in self.sensitive_tokens for cue in token.cues}
        return dataframe(
            {
                "position": np.repeat(positions, n),
                "token": np.repeat(np.array([self.tokens[i] for i in positions], dtype=object), n),
                "score": np.repeat(self.scores[positions], n),
                "contextless": np.repeat(np.array([self.contextless_tokens[i] for i in positions], dtype=object), n),
                "feature": list(self.attribution.feature_names) * len(positions),
                "attribution": self.attribution.token_values[positions].ravel(),
                "cue": [(int(t), i) in cues for t in positions for i in range(n)],
            }
        )

    def to_dict(self) -> dict[str, Any]:
        """Convert to plain Python values, as ``save`` writes them; includes the attribution and a list of the cues."""
        tokens = [
            {
                "position": token.position,
                "text": token.text,
                "score": token.score,
                "contextless": token.contextless,
                "probability": token.probability,
                "contextless_probability": token.contextless_probability,
                "cues": [{"feature": cue.feature.name, "index": cue.index, "value": cue.value} for cue in token.cues],
            }
            for token in self.sensitive_tokens
        ]
        own = {name: plain(getattr(self, name)) for name in _FIELDS}
        readable = {"tokens": list(self.tokens), "scores": plain(self.scores), "unit": self.unit}
        return {
            "schema": SCHEMA,
            "version": SCHEMA_VERSION,
            **own,
            **readable,
            "threshold": self.threshold,
            "sensitive_tokens": tokens,
            "attribution": self.attribution.to_dict(),
        }

    def to_json(self, *, ascii_only: bool = False) -> str:
        """Convert to JSON, as ``save`` writes it; ``ascii_only`` escapes all other characters.

        Raises:
            ResultError: options contain something that JSON cannot represent.
        """
        return result_json.dumps(self.to_dict(), ascii_only=ascii_only)

    def save(self, path: str | Path) -> Path:
        """Write the result to a JSON file, atomically.

        Raises:
            InputError: ``path`` is not a path.
            ResultError: the file cannot be written.
        """
        return result_json.write(self.to_dict(), checked_path("save", path))

    @classmethod
    def load(cls, path: str | Path) -> ContextReliance:
        """Read a result that ``save`` wrote.

        Warns:
            UserWarning: its attribution was changed after it was saved.

        Raises:
            InputError: ``path`` is not a path.
            ResultError: the file is missing, damaged, or has a schema that this version does not know.
        """
        checked = checked_path("load", path)
        try:
            data = json.loads(read_text(checked))
        except OSError as error:
            raise ResultError(f"Cannot read {checked}: {error.strerror or error}.") from error
        except InputError as error:
            raise ResultError(str(error)) from error
        except (ValueError, RecursionError) as error:
            raise ResultError(f"{checked} is not a saved context reliance: it is not valid JSON ({error}).") from error
        return cls(**_fields(data, str(checked)))

    def __getstate__(self) -> dict[str, Any]:
        """State for pickling and copying, without ``plugins``, which cannot leave the process."""
        return self.__dict__ | {"plugins": None}

    def _repr_html_(self) -> str:
        return self.to_html().fragment

    def __repr__(self) -> str:
        found = self.sensitive_tokens
        lines = [
            f"  {quoted(token.text)} ({self.metric} {token.score:.3g}): "
            + (", ".join(f"{quoted(cue.feature.name)} {cue.value:+.3g}" for cue in token.cues[:SHOWN]) or "no cue")
            for token in found[:SHOWN]
        ]
        more = [f"  and {counted(len(found) - SHOWN, 'more token')}"] if len(found) > SHOWN else []
        made = self.attribution.provenance
        return "\n".join(
            [
                f"ContextReliance: {self.finding}",
                *([] if found else ["  a lower threshold= marks more"]),
                *lines,
                *more,
                f"  {made.method}: {counted(made.evaluations, 'evaluation')}, {made.seconds:.3g} s",
            ]
        )


_FIELDS = (
    "metric",
    "sensitive",
    "contextless_tokens",
    "probabilities",
    "contextless_probabilities",
    "deviations",
    "most_tokens",
    "cue_deviations",
    "most_cues",
)
"""Fields that files hold as they are; the other keys follow from them."""


def _fields(data: object, place: str) -> dict[str, Any]:
    """The fields of a ``ContextReliance`` from the values of a file.

    Raises:
        ResultError: the schema or version is another one, or fields are missing or of the wrong type.
    """
    if not isinstance(data, Mapping) or data.get("schema") != SCHEMA:
        raise ResultError(f'{place} is not a saved context reliance: it has no "schema": "{SCHEMA}".')
    if data.get("version") != SCHEMA_VERSION:
        raise ResultError(
            f"{place} has schema version {data.get('version')!r}; this version of apportion reads {SCHEMA_VERSION}."
        )
    attribution = Attribution(**result_json.fields_of(data.get("attribution"), f"the attribution in {place}"))
    try:
        found = {name: data[name] for name in _FIELDS}
        arrays = {
            "sensitive": np.array(found["sensitive"], dtype=bool),
            "probabilities": np.array(found["probabilities"], dtype=np.float64),
            "contextless_probabilities": np.array(found["contextless_probabilities"], dtype=np.float64),
        }
        tokens = tuple(map(str, found["contextless_tokens"]))
        shape = (len(attribution.target_tokens),)
        wrong = [name for name, array in arrays.items() if array.shape != shape]
        if wrong or len(tokens) != shape[0]:
            raise ValueError(f"{(wrong or ['contextless_tokens'])[0]} does not fit {shape[0]} output tokens")
        if found["metric"] not in attribution.step_scores:
            raise ValueError(f"the attribution has no step score {found['metric']!r}")
    except (KeyError, TypeError, ValueError) as error:
        raise ResultError(f"{place} is damaged: {type(error).__name__}: {error}.") from error
    return found | arrays | {"contextless_tokens": tokens, "attribution": attribution}
