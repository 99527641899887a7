"""Scores by the logits after a prompt, for rows that begin alike, on servers that keep the beginnings of prompts.

vLLM reads a prompt anew whenever it is asked for ``prompt_logprobs``. It does not when it is asked for the
log-probabilities of given tokens after the prompt (``logprob_token_ids``). A target of T tokens then takes T prompts,
each one token longer, of which all but the last tokens are kept from the one before.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Mapping, Sequence
from typing import Any

from apportion.protocols.row import Row
from apportion_backends.beginnings import kept_beginning, pays
from apportion_backends.openai.client import Client, RefusedError
from apportion_backends.openai.dialects import BadAnswerError, LogProbs, choices_of, number_of

__all__ = ["PrefixReuse"]

MOST_IDS = 128
"""Tokens that a request may ask for."""
CACHING = re.compile(r'cache_config_info\{[^}]*enable_prefix_caching="True"')
REMEMBERED = 1024

Prompt = tuple[int, ...]


class PrefixReuse:
    """Asks for the tokens of targets one after the other.

    Args:
        client: sends requests.
        model: the model's name.
    """

    def __init__(self, client: Client, model: str) -> None:
        self._client, self._model = client, model
        self._lock = threading.Lock()
        self._read: dict[Prompt, None] = {}

    @classmethod
    def found(cls, client: Client, model: str, row: Row, known: LogProbs, tolerance: float) -> PrefixReuse | None:
        """The way, if a server keeps beginnings and gives the same scores for a row in this way.

        Raises:
            ServerError: the server does not answer.
        """
        if not CACHING.search(client.text(f"{client.address.root}/metrics")):
            return None
        made = cls(client, model)
        try:
            (scores,) = made([row], trial=True)
        except (RefusedError, BadAnswerError):
            return None
        same = all(abs(a - b) <= tolerance for a, b in zip(scores, known, strict=True))
        return made if same else None

    def pays(self, rows: Sequence[Row]) -> bool:
        """True if the server reads far fewer tokens in this way."""
        return len({token for row in rows for token in row.target}) <= MOST_IDS and pays(rows)

    def __call__(self, rows: Sequence[Row], *, trial: bool = False) -> list[LogProbs]:
        """The log-probabilities of each row's target.

        Raises:
            RefusedError: the server refuses the content.
            BadAnswerError: an answer lacks some of them.
            ServerError: the server does not answer, or a limit is reached.
        """
        found: list[list[float]] = [[] for _ in rows]
        begin = rows[0].prompt[: kept_beginning(rows)]
        with self._lock:  # other lanes wait, and do not read the same beginning at the same time
            if begin not in self._read:
                found[0] += self._asked([rows[0]], 0, trial)
                self._remember(begin)
        for place in range(max(len(row.target) for row in rows)):
            wanted = [i for i, row in enumerate(rows) if len(found[i]) == place < len(row.target)]
            for i, score in zip(wanted, self._asked([rows[i] for i in wanted], place, trial), strict=True):
                found[i].append(score)
        return [tuple(scores) for scores in found]

    def _asked(self, rows: Sequence[Row], place: int, trial: bool) -> list[float]:
        """The log-probability of the target token at one place, of each row."""
        if not rows:
            return []
        prompts = [[*row.prompt, *row.target[:place]] for row in rows]
        content: dict[str, Any] = {
            "model": self._model,
            "prompt": prompts,
            "max_tokens": 1,
            "temperature": 0.0,
            "logprobs": 0,
            "logprob_token_ids": sorted({row.target[place] for row in rows}),
            "return_tokens_as_token_ids": True,
        }
        read = sum(map(len, prompts))
        answer = self._client.post(f"{self._client.address.base}/completions", content, read + len(rows), trial=trial)
        choices = choices_of(answer, len(rows))
        usage = answer.get("usage")
        if not isinstance(usage, Mapping) or usage.get("prompt_tokens") != read:
            raise BadAnswerError(f"prompts of other lengths than {read} tokens")
        return [_of_choice(choice, row.target[place]) for choice, row in zip(choices, rows, strict=True)]

    def _remember(self, begin: Prompt) -> None:
        self._read[begin] = None
        while len(self._read) > REMEMBERED:
            self._read.pop(next(iter(self._read)))


def _of_choice(choice: Mapping[str, Any], token: int) -> float:
    logprobs = choice.get("logprobs")
    tops = logprobs.get("top_logprobs") if isinstance(logprobs, Mapping) else None
    first = tops[0] if isinstance(tops, list) and tops else None
    if not isinstance(first, Mapping) or f"token_id:{token}" not in first:
        raise BadAnswerError(f"no log-probability of token {token}")
    return number_of(first[f"token_id:{token}"])
