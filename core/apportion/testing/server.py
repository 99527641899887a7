"""A small server with the APIs of inference engines over a session, which can be told to fail."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BufferedIOBase
from typing import TYPE_CHECKING, Any

import torch

from apportion.protocols.backend import GenerateSession, Session
from apportion.protocols.batch import ScoringBatch
from apportion.protocols.row import ModelInput, Row
from apportion.testing.server_answers import ENGINES, Engine

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

__all__ = ["CompletionsServer", "Fault", "Received"]


@dataclass(frozen=True, slots=True)
class Fault:
    """A way to fail.

    Attributes:
        status: status code of the answer.
        body: its content; ``None`` for an error of the engine's form.
        headers: further headers, such as ``Retry-After``.
        drop: close the connection without an answer.
        delay: seconds to wait before the answer.
        alter: changes a good answer, in place of all the others.
        several: fail only requests with several prompts.
        drip: seconds between the bytes of the answer.
    """

    status: int = 500
    body: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    drop: bool = False
    delay: float = 0.0
    alter: Callable[[Any], Any] | None = None
    several: bool = False
    drip: float = 0.0


@dataclass(frozen=True, slots=True)
class Received:
    """A request that was received.

    Attributes:
        path: its path.
        content: its JSON.
        authorization: its header of that name.
    """

    path: str
    content: Any
    authorization: str | None


class CompletionsServer:
    """Serves a session on a port of this machine, as an engine would; a context manager.

    Args:
        session: scores and generates; one request at a time.
        tokenizer: shown at ``/tokenize``; ``None`` to show none.
        engine: ``"vllm"``, ``"sglang"``, ``"openai"`` (``echo``), or ``"chat"`` or ``"text"``, which score nothing and
            only have the API for messages, or that for completions.
        name: name of the model.
        key: key that requests must have.
        context_length: as the list of models says.
        seconds_per_token: time that a request takes for each token, in place of the session: scores are then made up.
        slots: requests that are computed at once; others wait.
        keeps_prefixes: say, as vLLM does, that beginnings of prompts are kept.
        writes: writes texts in place of the session: called with the prompt, or its messages as ``role: content`` in
            lines, and the content of the request.

    Attributes:
        received: requests so far.
        rows: rows that were scored so far.
        most_at_once: the most requests that were under way at the same time.
    """

    def __init__(
        self,
        session: Session | None,
        tokenizer: PreTrainedTokenizerBase | None = None,
        *,
        engine: str = "vllm",
        name: str = "tiny",
        key: str | None = None,
        context_length: int | None = 512,
        seconds_per_token: float = 0.0,
        slots: int = 1,
        keeps_prefixes: bool = False,
        writes: Callable[[str, Mapping[str, Any]], str] | None = None,
    ) -> None:
        self._writes = writes
        self.keeps_prefixes = keeps_prefixes
        self.session, self.tokenizer = session, tokenizer
        self.engine: Engine = ENGINES[engine]
        self.name, self.key, self.context_length = name, key, context_length
        self.received: list[Received] = []
        self.rows: list[Row] = []
        self.most_at_once = 0
        self._seconds, self._slots = seconds_per_token, threading.Semaphore(slots)
        self._faults: list[tuple[Fault, str]] = []
        self._lock = threading.Lock()
        self._under_way = self._drawn = 0
        self._http: _Listener | None = None
        self._port = 0

    def __enter__(self) -> CompletionsServer:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def address(self) -> str:
        """The address of the API."""
        return f"http://127.0.0.1:{self._port}/v1"

    def start(self) -> None:
        """Listen: at first on any free port, and later on the same."""
        self._http = _Listener(("127.0.0.1", self._port), _handler(self))
        self._port = self._http.server_port
        threading.Thread(target=self._http.serve_forever, args=(0.01,), daemon=True).start()

    def stop(self) -> None:
        """Close the port and all connections, in the middle of requests."""
        http, self._http = self._http, None
        if http is not None:
            http.shutdown()
            http.server_close()
            http.close_connections()

    def fail(self, fault: Fault, times: int = 1, *, path: str = "completions") -> None:
        """Fail the next requests to paths that end so, before any that fail already; −1 times for all of them."""
        with self._lock:
            self._faults[:0] = [(fault, path)] * (times if times >= 0 else 100_000)

    def recover(self) -> None:
        """Fail no more."""
        with self._lock:
            self._faults.clear()

    def take_fault(self, path: str, content: Any) -> Fault | None:
        """The fault that a request meets."""
        with self._lock:
            for place, (fault, end) in enumerate(self._faults):
                if path.endswith(end) and not (fault.several and _prompts_in(content) < 2):
                    return self._faults.pop(place)[0]
        return None

    def scores(self, prompts: Sequence[Sequence[int]]) -> list[list[float]]:
        """Log-probabilities of all tokens but the first of each prompt."""
        rows = [Row(tuple(ids[:1]), tuple(ids[1:])) for ids in prompts]
        if self._seconds:
            with self._slots:
                time.sleep(self._seconds * sum(map(len, prompts)))
            with self._lock:
                self.rows += rows
            return [[-(1.0 + token % 7) for token in row.target] for row in rows]
        assert self.session is not None
        with self._lock:
            self.rows += rows
            found: list[list[float]] = []
            for row in rows:
                found += self.session.log_probs(ScoringBatch((row,))).double().tolist()
            return found

    def ids_of(self, text: str) -> list[int]:
        """The tokens of a text."""
        return [*self._tokens_here(text)["input_ids"]]

    @property
    def _tokens_here(self) -> PreTrainedTokenizerBase:
        """The tokenizer, which the server may not show."""
        found = self.tokenizer or (None if self.session is None else self.session.tokenizer)
        assert found is not None, "The server has no tokenizer."
        return found

    def written(self, ids: Sequence[int], content: Mapping[str, Any]) -> tuple[int, ...]:
        """The tokens that follow a prompt, by the options of a request."""
        count = int(content.get("max_tokens") or content.get("max_completion_tokens") or 16)
        if not isinstance(self.session, GenerateSession):
            return (1,) * count
        heat, options = float(content.get("temperature", 1.0)), dict[str, object]()
        if heat:
            options = {"do_sample": True, "temperature": heat, "top_p": float(content.get("top_p", 1.0)), "top_k": 0}
        with self._lock, torch.no_grad():
            options["max_new_tokens"] = count
            self._drawn += 1
            return self.session.generate(ModelInput(tuple(ids)), options, int(content.get("seed", self._drawn)))

    def text(self, prompt: str, content: Mapping[str, Any]) -> str:
        """The text that follows another one."""
        if self._writes is not None:
            return self._writes(prompt, content)
        return self.decoded(self.written(self.ids_of(prompt), content))

    def decoded(self, ids: Sequence[int]) -> str:
        """The text of tokens, without control tokens; empty if the server has no tokenizer."""
        if self.tokenizer is None and self.session is None:
            return ""
        return str(self._tokens_here.decode([*ids], skip_special_tokens=True))

    @contextmanager
    def counted(self, received: Received) -> Iterator[None]:
        """Count a request while it is under way."""
        with self._lock:
            self.received.append(received)
            self._under_way += 1
            self.most_at_once = max(self.most_at_once, self._under_way)
        try:
            yield
        finally:
            with self._lock:
                self._under_way -= 1


def _prompts_in(content: Any) -> int:
    """Number of prompts in a request."""
    prompts = content.get("prompt") or content.get("input_ids") if isinstance(content, Mapping) else None
    return len(prompts) if isinstance(prompts, list) and isinstance(prompts[0], list) else 1


class _Listener(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 256

    def __init__(self, *args: Any) -> None:
        self._sockets: set[Any] = set()
        super().__init__(*args)

    def process_request(self, request: Any, client_address: Any) -> None:
        self._sockets.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        self._sockets.discard(request)
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing: clients may go away."""

    def close_connections(self) -> None:
        for one in list(self._sockets):
            super().shutdown_request(one)


def _handler(server: CompletionsServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def do_GET(self) -> None:
            self._answer(None)

        def do_POST(self) -> None:
            self._answer(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))

        def _answer(self, content: Any) -> None:
            received = Received(self.path, content, self.headers.get("Authorization"))
            with server.counted(received):
                self._respond(received)

        def _respond(self, received: Received) -> None:
            fault = server.take_fault(received.path, received.content)
            if fault is not None:
                time.sleep(fault.delay)
            if fault is not None and fault.drop:
                self.close_connection = True
                return
            if server.key is not None and received.authorization != f"Bearer {server.key}":
                self._send(401, _error(f"Incorrect API key provided: {received.authorization}"))
            elif fault is not None and fault.alter is None and not (fault.delay and fault.body is None):
                text = fault.body if fault.body is not None else json.dumps(_error(f"made to fail with {fault.status}"))
                self._send(fault.status, text, fault.headers, drip=fault.drip)
            else:
                status, found = server.engine.answer(server, received.path, received.content)
                self._send(status, fault.alter(found) if fault is not None and fault.alter is not None else found)

        def _send(self, status: int, content: Any, headers: Mapping[str, str] | None = None, drip: float = 0.0) -> None:
            body = (content if isinstance(content, str) else json.dumps(content)).encode()
            self.send_response(status)
            for name, value in {**(headers or {}), "Content-Length": str(len(body))}.items():
                self.send_header(name, value)
            self.end_headers()
            _write(self.wfile, body, drip)

        def log_message(self, *_: Any) -> None:
            """Say nothing."""

    return Handler


def _write(file: BufferedIOBase, body: bytes, drip: float) -> None:
    """Write a body, byte by byte with a pause before each if there is one."""
    for part in [body[i : i + 1] for i in range(len(body))] if drip else [body]:
        time.sleep(drip)
        file.write(part)
        file.flush()


def _error(message: str) -> dict[str, Any]:
    return {"error": {"message": message, "type": "invalid_request_error", "code": None}}
