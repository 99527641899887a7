"""Texts of a rehearsed run: counted, and at most one of them written to see how long it takes."""

from __future__ import annotations

import time
from collections.abc import Sequence
from math import ceil

from apportion.protocols.row import ModelInput
from apportion.scoring.text_scorer import TextScorer

__all__ = ["RehearsedTexts"]

NEW_TOKENS = 25
"""Number of tokens of a text if nothing is said."""


class RehearsedTexts:
    """Counts texts and tokens.

    Attributes:
        count: number of texts.
        requests: number of those that are paid for, each by a request.
        tokens: number of tokens to read and write, if every text is as long as it may be.
    """

    def __init__(self) -> None:
        self.count = self.requests = self.tokens = 0
        self._scorer: TextScorer | None = None
        self._longest: ModelInput | None = None

    def add(self, scorer: TextScorer, inputs: Sequence[ModelInput]) -> None:
        """Count the texts after some prompts.

        Raises:
            InputError, CapabilityError: no text can be written after one of them.
        """
        scorer.source.check(inputs)
        self._scorer = scorer
        for item in inputs:
            self._add(scorer, item, scorer.samples)
            if self._longest is None or len(item.ids) > len(self._longest.ids):
                self._longest = item

    def add_extra(self, prompt: ModelInput, texts: int) -> None:
        """Count further texts after one prompt."""
        if self._scorer is not None:
            self._add(self._scorer, prompt, texts)

    def _add(self, scorer: TextScorer, item: ModelInput, texts: int) -> None:
        session, most = scorer.source.session, scorer.source.writer.options.get("max_new_tokens", NEW_TOKENS)
        assert isinstance(most, int)
        size = float(getattr(session, "bytes_per_token", 1.0))
        self.count += texts
        self.requests += texts if session.layout.metered else 0
        self.tokens += texts * (ceil(len(item.ids) / size) + most)

    def timed(self) -> tuple[float, str]:
        """Estimate the time of all texts, and describe how it was measured. Nothing is sent that is paid for."""
        scorer, longest = self._scorer, self._longest
        if scorer is None or longest is None:
            return 0.0, ""
        session = scorer.source.session
        if session.layout.metered:
            pace = float(getattr(session, "pace", 0.0))
            return pace * self.tokens / session.layout.lanes, "from earlier requests; none was sent"
        started = time.perf_counter()
        scorer.source.writer(longest, 0)
        seconds = time.perf_counter() - started
        return seconds * self.count / session.layout.lanes, "with one text after the longest prompt"
