"""Opening of a server's model: as one that scores given tokens, or else as a black box that writes texts."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, cast

from apportion.errors import ModelError
from apportion.models.tokenizer import open_tokenizer
from apportion.protocols.backend import Session
from apportion.protocols.model import ModelSpec
from apportion_backends.known_again import PROBE
from apportion_backends.openai.black_box import black_box_of
from apportion_backends.openai.client import Client, RefusedError
from apportion_backends.openai.discovery import Served, traits_of
from apportion_backends.openai.session import ServerSession
from apportion_backends.openai.text_session import TextServerSession
from apportion_backends.openai.tokenizer import ServedTokenizer, tokens_by_server

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

__all__ = ["opened"]

UNUSED = "the given tokenizer is not used, because texts and messages are sent"


def opened(
    client: Client, served: Served, spec: ModelSpec, *, api: str | None, lanes: int, rows: int, memory_budget: int
) -> Session:
    """Open a model of a server.

    Args:
        client: sends requests.
        served: the model.
        spec: the address and the tokenizer, as the user gave them.
        api: the API by which the server is a black box; ``None`` to have it score given tokens if it can.
        lanes: the most requests at once.
        rows: the most rows in a request.
        memory_budget: bytes that a request and its answer may take.

    Raises:
        ModelError: the server neither scores given tokens nor writes texts, or the given tokenizer is another.
        ServerError: the server cannot be reached, or refuses the key.
    """
    refusal = f"the server is used by its {api} API (api={api!r})"
    if api is None:
        tokenizer, notes = _tokenizer(client, served, spec)
        if tokenizer is None:
            refusal = (
                f"the server does not show its tokenizer (there is no /tokenize). Give that of {served.name!r}, "
                "tokenizer= a hub id, a folder or an object, to have it try to score given tokens"
            )
        else:
            ids = tokenizer(PROBE, add_special_tokens=False)["input_ids"]
            traits, reasons = traits_of(client, served.name, ids)
            if traits is not None:
                return ServerSession(
                    client, served, traits, tokenizer, lanes=lanes, rows=rows, memory_budget=memory_budget, notes=notes
                )
            refusal = "; ".join(reasons)
    box, others = black_box_of(client, served.name, api)
    if box is None:
        raise ModelError(
            f"The server at {client.address.base} neither scores given tokens with {served.name!r} ({refusal}), nor "
            f"writes texts ({'; '.join(others)}). Engines that score: vLLM (prompt_logprobs), SGLang, and completions "
            "APIs with echo and logprobs."
        )
    unused = (UNUSED,) if spec.tokenizer is not None else ()
    return TextServerSession(
        client, served, box, lanes=lanes, memory_budget=memory_budget, refusal=refusal, notes=unused
    )


def _tokenizer(
    client: Client, served: Served, spec: ModelSpec
) -> tuple[PreTrainedTokenizerBase | None, tuple[str, ...]]:
    """The model's tokenizer, or ``None`` if none is given and the server shows none; and notes on it.

    Raises:
        ModelError: the given one is another.
    """
    try:
        theirs = tokens_by_server(client, served.name, PROBE)
    except RefusedError:
        theirs = None
    if spec.tokenizer is None and theirs is not None and _at_hand(served.root):
        # The folder or hub id that the server names is on this machine, too.
        with suppress(ModelError):  # the folder may hold no tokenizer
            own = open_tokenizer(spec, default=served.root)
            if list(own(PROBE)["input_ids"]) == theirs:
                return own, ()
    if spec.tokenizer is None:
        if theirs is None:
            return None, ()
        return cast("PreTrainedTokenizerBase", ServedTokenizer(client, served.name)), (
            "texts are cut into tokens by the server",
        )
    tokenizer = open_tokenizer(spec)
    if theirs is None:
        return tokenizer, ("the server does not show its tokenizer, so that it could not be compared with the given",)
    ours = list(tokenizer(PROBE)["input_ids"])
    if ours != theirs:
        raise ModelError(
            f"The given tokenizer is not that of {served.name!r}: it cuts {PROBE[:20]!r}… into {ours[:6]}…, and the "
            f"server into {theirs[:6]}…. Leave it out to have the server's."
        )
    return tokenizer, ()


def _at_hand(root: str) -> bool:
    """True if a folder or hub id can be opened without a download."""
    if not root or Path(root).is_dir():
        return bool(root)
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        return isinstance(try_to_load_from_cache(root, "tokenizer_config.json"), str)
    except HFValidationError:
        return False
