"""The backend: addresses of servers."""

from __future__ import annotations

import importlib.util
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from apportion.errors import BackendError, InputError, shown
from apportion.options import whole_number
from apportion.protocols.backend import Available, BackendInfo, Capability, Session, Unavailable
from apportion.protocols.model import ModelSpec

if TYPE_CHECKING:
    from apportion_backends.openai.limits import Price

__all__ = ["OpenAIBackend"]

INSTALL = "pip install 'apportion[remote]'"
NEEDED = ("httpx", "tenacity")
MEMORY = 256 * 2**20


class OpenAIBackend:
    """Scores a model that a server has, by its completions API; no weights are loaded here."""

    info = BackendInfo(
        name="openai",
        devices=("server",),
        capabilities=frozenset({Capability.LOG_PROBS, Capability.GENERATE, Capability.TEXT}),
        # It claims only what no other backend opens.
        priority=5,
        summary="a model behind a server: vLLM, SGLang, completions APIs; chat APIs as black boxes",
    )

    def availability(self) -> Available | Unavailable:
        """The backend is available if its packages are installed; whether a server answers is another matter."""
        missing = [name for name in NEEDED if importlib.util.find_spec(name) is None]
        return Unavailable(f"{' and '.join(missing)} is not installed", INSTALL) if missing else Available()

    def claims(self, spec: ModelSpec) -> bool:
        """Addresses that begin with ``http://`` or ``https://``."""
        return spec.objects is None and urlsplit(spec.source).scheme in ("http", "https")

    def load(
        self,
        spec: ModelSpec,
        *,
        device: str | None = None,
        dtype: str | None = None,
        memory_budget: int | None = None,
        model: str | None = None,
        lanes: int = 8,
        rows: int = 16,
        timeout: float = 600.0,
        patience: float = 120.0,
        key_variable: str | None = None,
        key_file: str | None = None,
        max_requests: int | None = None,
        max_cost: float | None = None,
        price: float | None = None,
        api: str | None = None,
    ) -> Session:
        """Ask a server what model it has and how it scores given tokens, in a handful of short requests.

        Args:
            spec: the address of its API, such as ``http://localhost:8000/v1``, and the tokenizer: an object, a hub id
                or a folder. Without one, that of the folder or hub id that the server names is used, if it is on this
                machine, or else the server's own, where it shows it.
            device: ``None``; the server decides.
            dtype: ``None``; the server decides.
            memory_budget: bytes that a request and its answer may take; ``None`` for 256 MiB.
            model: name of the model; ``None`` for the only one that the server has.
            lanes: the most requests at once. There are fewer while the server is busy.
            rows: the most prompts in a request.
            timeout: seconds from a request to the end of its answer.
            patience: seconds after a first failure within which a request is tried again.
            key_variable: environment variable that holds the server's key; ``None`` for ``APPORTION_API_KEY``, and for
                OpenAI's own server ``OPENAI_API_KEY``.
            key_file: file that holds nothing but the key.
            max_requests: the most requests that the session may send, retries included.
            max_cost: the most that may be spent, in the currency of ``price``.
            price: what the server charges for a million tokens.
            api: ``"chat"`` or ``"completions"`` to use the server as a black box that writes texts, by this API.
                ``None`` to have it score given tokens if it can.

        Raises:
            BackendError: a device or dtype is given.
            ServerError: the server cannot be reached, or refuses the key.
            ModelError: it has no such model, neither scores given tokens nor writes texts, or has another tokenizer.
            InputError: an option has a value that it cannot have.
        """
        from apportion_backends.openai.address import Address, find_key
        from apportion_backends.openai.black_box import APIS
        from apportion_backends.openai.client import Client, Patience
        from apportion_backends.openai.discovery import served_model
        from apportion_backends.openai.limits import Gate, Meter
        from apportion_backends.openai.opening import opened

        if api not in (None, *APIS):
            raise InputError(f"api={shown(api)} must be {' or '.join(map(repr, APIS))}, or None.")
        for name, given in (("device", device), ("dtype", dtype)):
            if given is not None:
                raise BackendError(f"{name}={shown(given)} cannot be chosen: the server decides. Leave it out.")
        lanes, rows = whole_number("lanes", lanes, least=1), whole_number("rows", rows, least=1)
        if max_requests is not None:
            max_requests = whole_number("max_requests", max_requests, least=1)
        wait = Patience(_number("timeout", timeout, above=0.0), _number("patience", patience))
        address = Address.of(spec.source)
        client = Client(
            address,
            find_key(address, key_variable, key_file),
            Gate(lanes),
            Meter(max_requests, _price(price, max_cost)),
            wait,
        )
        try:
            served = served_model(client, model)
            return opened(client, served, spec, api=api, lanes=lanes, rows=rows, memory_budget=memory_budget or MEMORY)
        except BaseException:
            client.close()
            raise


def _price(price: float | None, max_cost: float | None) -> Price | None:
    from apportion_backends.openai.limits import Price

    if max_cost is not None and price is None:
        raise InputError("max_cost= needs price=, what the server charges for a million tokens.")
    most = None if max_cost is None else _number("max_cost", max_cost)
    return None if price is None else Price(_number("price", price), most)


def _number(name: str, value: object, above: float | None = None) -> float:
    """A number of at least 0, or above a bound.

    Raises:
        InputError: it is not.
    """
    fits = isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < float("inf")
    if not fits or (above is not None and not value > above):  # type: ignore[operator]
        raise InputError(f"{name}={shown(value)} must be a number {'above' if above is not None else 'of at least'} 0.")
    return float(value)  # type: ignore[arg-type]
