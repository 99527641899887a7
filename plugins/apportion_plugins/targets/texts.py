"""Target functions of the texts that a model writes, compared with the target's text."""

from __future__ import annotations

import importlib
import unicodedata
from typing import Any

import regex
import torch
from jaxtyping import Float
from torch import Tensor

from apportion.errors import InputError, shown
from apportion.options import true_or_false, whole_number
from apportion.protocols.targets import Needs, Scores, Target

__all__ = ["BLEU", "ChrF", "ExactMatch", "Regex", "TextTarget"]


PUNCTUATION = r"[\p{P}$+<=>^`|~]+"
"""As in Unicode and in ASCII, where some of it counts as symbols."""


class TextTarget:
    """Base of target functions that compare one text at a time with the target's."""

    needs = Needs.TEXT

    def __call__(self, scores: Scores, target: Target) -> Float[Tensor, "S 1"]:
        """Values of S texts."""
        assert scores.texts is not None
        values = [self.value(text, target.text) for text in scores.texts]
        return torch.tensor(values, dtype=torch.float64).reshape(-1, 1)

    def value(self, text: str, wanted: str) -> float:
        """The value of a text.

        Args:
            text: text that the model wrote.
            wanted: the target's text.
        """
        raise NotImplementedError


class ExactMatch(TextTarget):
    """1 if the text is the target, else 0. White space around both does not count, nor how accents are encoded.

    Args:
        ignore_case: upper and lower case are the same.
        ignore_punctuation: leave out punctuation.
        ignore_articles: leave out the words a, an and the, and take any white space for a space. With the other two, it
            is the comparison of SQuAD (Rajpurkar et al., 2016).
    """

    unit = "match"
    label = "exact match with the target"

    def __init__(
        self, *, ignore_case: bool = False, ignore_punctuation: bool = False, ignore_articles: bool = False
    ) -> None:
        self._case = true_or_false("ignore_case", ignore_case)
        self._punctuation = true_or_false("ignore_punctuation", ignore_punctuation)
        self._articles = true_or_false("ignore_articles", ignore_articles)

    def value(self, text: str, wanted: str) -> float:
        """1 or 0."""
        return float(self._plain(text) == self._plain(wanted))

    def _plain(self, text: str) -> str:
        text = unicodedata.normalize("NFC", text)
        text = text.casefold() if self._case else text
        text = regex.sub(PUNCTUATION, "", text) if self._punctuation else text
        if not self._articles:
            return text.strip()
        return " ".join(regex.sub(r"\b(a|an|the)\b", " ", text, flags=regex.IGNORECASE).split())


class Regex(TextTarget):
    """1 if a pattern is found in the text, else 0.

    Args:
        pattern: regular expression, in the syntax of the package ``regex``; ``None`` for the target's text itself,
            without white space around it.
        ignore_case: upper and lower case are the same.
        whole: the pattern must match the whole text, without white space around it.

    Raises:
        InputError: the pattern is not a regular expression.
    """

    unit = "match"
    label = "match of the pattern"

    def __init__(self, *, pattern: str | int | None = None, ignore_case: bool = False, whole: bool = False) -> None:
        self._flags = regex.IGNORECASE if true_or_false("ignore_case", ignore_case) else 0
        self._whole = true_or_false("whole", whole)
        # The shell reads digits as a number.
        given = str(pattern) if type(pattern) is int else pattern
        self._pattern = None if given is None else self._compiled(given)

    def check(self, target: Target) -> None:
        """Refuse a target without any text to look for.

        Raises:
            InputError: it is one, and there is no pattern.
        """
        if self._pattern is None and not target.text.strip():
            raise InputError(
                "The target is white space, which is nothing to look for. Give a pattern, or another target."
            )

    def value(self, text: str, wanted: str) -> float:
        """1 or 0."""
        pattern = self._pattern or self._compiled(regex.escape(wanted.strip()))
        return float(bool(pattern.fullmatch(text.strip()) if self._whole else pattern.search(text)))

    def _compiled(self, pattern: object) -> regex.Pattern[str]:
        if not isinstance(pattern, str) or not pattern:
            raise InputError(f"pattern={shown(pattern)} must be a regular expression, such as '\\\\d+'.")
        try:
            return regex.compile(pattern, self._flags)
        except regex.error as error:
            raise InputError(f"pattern={shown(pattern)} is not a regular expression: {error}.") from error


class _Sacrebleu(TextTarget):
    """Base of metrics of the package sacrebleu.

    Args:
        place: module and name of the metric.
        **options: its options.
    """

    def __init__(self, place: str, **options: Any) -> None:
        module, name = place.split(":")
        self._metric: Any = None
        self.lacking = ""
        try:
            self._metric = getattr(importlib.import_module(f"sacrebleu.metrics.{module}"), name)(**options)
        except ImportError:
            self.lacking = 'needs sacrebleu, which is not installed: pip install "apportion[text]"'

    def value(self, text: str, wanted: str) -> float:
        """Score from 0 to 100."""
        return float(self._metric.sentence_score(text, [wanted]).score)


class ChrF(_Sacrebleu):
    """chrF of the text against the target, 0 to 100: F-score of character n-grams (Popović, WMT 2015; sacrebleu).

    Args:
        word_order: longest n-gram of words; 2 for chrF++.
        ignore_case: upper and lower case are the same.
    """

    unit = "chrF"
    label = "similarity of characters with the target"

    def __init__(self, *, word_order: int = 0, ignore_case: bool = False) -> None:
        order = whole_number("word_order", word_order, least=0)
        super().__init__("chrf:CHRF", word_order=order, lowercase=true_or_false("ignore_case", ignore_case))


class BLEU(_Sacrebleu):
    """BLEU of the text against the target, 0 to 100, smoothed for sentences (Papineni et al., ACL 2002; sacrebleu).

    Args:
        ignore_case: upper and lower case are the same.
    """

    unit = "BLEU"
    label = "similarity of words with the target"

    def __init__(self, *, ignore_case: bool = False) -> None:
        super().__init__("bleu:BLEU", effective_order=True, lowercase=true_or_false("ignore_case", ignore_case))
