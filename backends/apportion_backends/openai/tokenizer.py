"""The tokenizer of a server, for models whose tokenizer is not at hand."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from typing import Any

from apportion.errors import InputError, ServerError
from apportion_backends.openai.client import Client, RefusedError

__all__ = ["ServedTokenizer", "tokens_by_server"]

KEPT = 50_000
"""Texts whose tokens are remembered, and tokens whose texts are."""
AT_ONCE = 8
SAMPLE = "a"


class ServedTokenizer:
    """Cuts texts by requests to ``/tokenize`` and ``/detokenize``, as far as apportion needs a tokenizer.

    It is slower than a tokenizer at hand, and does not know which tokens are control tokens, nor a chat template.

    Args:
        client: sends requests.
        model: the model's name.

    Attributes:
        chat_template: always ``None``.
        is_fast: always false: the places of tokens in a text are not known.
    """

    chat_template: str | None = None
    is_fast = False
    unk_token_id: int | None = None
    unk_token: str | None = None
    pad_token_id: int | None = None
    eos_token_id: int | None = None

    def __init__(self, client: Client, model: str) -> None:
        self._client, self._model = client, model
        self._cut = lru_cache(KEPT)(self._asked)
        self._joined = lru_cache(KEPT)(self._text)
        plain, whole = self._cut(SAMPLE, False), self._cut(SAMPLE, True)
        start = whole[: len(whole) - len(plain)] if whole[len(whole) - len(plain) :] == plain else ()
        self.bos_token_id: int | None = start[0] if len(start) == 1 else None
        self.all_special_ids: list[int] = list(start)
        self.all_special_tokens: list[str] = [self._joined((token,)) for token in start]
        self.added_tokens_decoder: dict[int, Any] = {}

    def __call__(
        self,
        text: str | Sequence[str],
        *,
        add_special_tokens: bool = True,
        return_attention_mask: bool = False,
    ) -> dict[str, Any]:
        """The ids of a text, or of several.

        Raises:
            InputError: the server refuses a text.
            ServerError: it does not answer, or answers without ids.
        """
        if isinstance(text, str):
            return {"input_ids": [*self._cut(text, add_special_tokens)]}
        with ThreadPoolExecutor(AT_ONCE) as pool:
            found = pool.map(lambda one: self._cut(one, add_special_tokens), text)
            return {"input_ids": [[*ids] for ids in found]}

    def __len__(self) -> int:
        """Number of tokens; not known, and so as large as ids can be."""
        return 2**31 - 1

    def encode(self, text: str, *, add_special_tokens: bool = True) -> list[int]:
        """The ids of a text."""
        return [*self._cut(text, add_special_tokens)]

    def decode(self, ids: int | Iterable[int], **_: Any) -> str:
        """The text of some tokens."""
        return self._joined((ids,) if isinstance(ids, int) else tuple(int(one) for one in ids))

    def convert_ids_to_tokens(self, ids: int | Sequence[int], **_: Any) -> str | list[str]:
        """The text of each token."""
        return self.decode(ids) if isinstance(ids, int) else [self.decode([one]) for one in ids]

    def _asked(self, text: str, special: bool) -> tuple[int, ...]:
        try:
            found = tokens_by_server(self._client, self._model, text, special=special)
        except RefusedError as refused:
            raise InputError(f"The server cannot cut the text {text[:40]!r} into tokens ({refused}).") from None
        if found is None:
            raise ServerError(f"The server at {self._client.address.base} no longer shows the tokens of texts.")
        return tuple(found)

    def _text(self, ids: tuple[int, ...]) -> str:
        content = {"model": self._model, "tokens": [*ids]}
        try:
            answer = self._client.post(f"{self._client.address.root}/detokenize", content, None)
        except RefusedError as refused:
            raise InputError(f"The server does not know the tokens {list(ids)[:8]} ({refused}).") from None
        found = answer.get("prompt") if isinstance(answer, Mapping) else None
        if not isinstance(found, str):
            raise ServerError(f"The server at {self._client.address.base} answered without the text of tokens.")
        return found


def tokens_by_server(client: Client, model: str, text: str, *, special: bool = True) -> list[int] | None:
    """The ids of a text by the server's own tokenizer; ``None`` if it does not show them.

    Raises:
        RefusedError: the server refuses the text.
        ServerError: the server cannot be reached, or refuses the key.
    """
    content = {"model": model, "prompt": text, "add_special_tokens": special}
    try:
        answer = client.post(f"{client.address.root}/tokenize", content, None, trial=True)
    except RefusedError as refused:
        if refused.status in (400, 413, 422):
            raise
        return None
    found = answer.get("tokens") if isinstance(answer, Mapping) else None
    return found if isinstance(found, list) and all(type(one) is int for one in found) else None
