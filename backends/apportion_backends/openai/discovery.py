"""The abilities of a server, found by asking it: its model, and how it scores given tokens."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from apportion.errors import InputError, ModelError, listing
from apportion.protocols.likeness import Likeness
from apportion.protocols.row import Row
from apportion_backends.openai.client import Client, RefusedError
from apportion_backends.openai.dialects import DIALECTS, BadAnswerError, Dialect, LogProbs
from apportion_backends.openai.prefix_reuse import PrefixReuse

__all__ = ["Served", "Traits", "asked", "served_model", "traits_of"]

ROUNDING = 1e-4
"""Largest difference in nats between two answers about one row that is not worth a note."""
LEAST_TOLERANCE, TIMES_NOISE = 1e-3, 8.0
"""Difference up to which caches take a row's scores for those of the same model, in nats, and as a multiple of the
noise that was measured."""


@dataclass(frozen=True, slots=True)
class Served:
    """A model that a server has.

    Attributes:
        name: the name that requests give.
        context_length: maximum number of tokens of prompt and target together; ``None`` if the server does not say.
        about: what else the server says of it that stays the same, for fingerprints.
        root: hub id or folder that the server took it from; empty if it does not say.
    """

    name: str
    context_length: int | None
    about: str
    root: str


@dataclass(frozen=True, slots=True)
class Traits:
    """The way in which a server scores.

    Attributes:
        dialect: the way to ask for log-probabilities.
        several: a request may have several rows.
        likeness: scores of a row by which the model is known again.
        notes: sentences for results.
        reuse: another way for rows that begin alike, where the server keeps beginnings; ``None`` if it does not.
    """

    dialect: Dialect
    several: bool
    likeness: Likeness
    notes: tuple[str, ...]
    reuse: PrefixReuse | None = None


def served_model(client: Client, name: str | None) -> Served:
    """The model of this name, or the only one that the server has.

    Raises:
        ServerError: the server cannot be reached, or asks for a key.
        ModelError: it does not list models, or has no model of this name.
        InputError: it has several, and none is named.
    """
    base = client.address.base
    try:
        answer = client.get(f"{base}/models")
    except RefusedError as refused:
        raise ModelError(
            f"There is no OpenAI-compatible API at {base}: GET /models was answered with {refused}. The address ends "
            "with the path of the API, usually /v1."
        ) from None
    listed = answer.get("data") if isinstance(answer, Mapping) else None
    models = [one for one in listed or () if isinstance(one, Mapping) and _is_name(one.get("id"))]
    names = [str(one["id"]) for one in models]
    there = listing(map(client.quoted, names))
    if not names:
        raise ModelError(f"The server at {base} lists no models.")
    if name is None and len(names) > 1:
        raise InputError(
            f"The server at {base} has {len(names)} models: {there}. Name one: backend='openai', "
            "backend_options={'model': …}."
        )
    if name is not None and name not in names:
        raise ModelError(f"The server at {base} has no model {name!r}. It has: {there}.")
    found = models[names.index(name or names[0])]
    length = found.get("max_model_len")
    # A token is written after each row, and it needs a place.
    context = length - 1 if type(length) is int and length > 1 else None
    about = f"{found['id']} {found.get('root')} {found.get('owned_by')}"
    return Served(str(found["id"]), context, about, str(found.get("root") or ""))


def probe_rows(ids: Sequence[int]) -> tuple[Row, Row]:
    """Two rows of different lengths from the tokens of ``PROBE``."""
    tokens = tuple(ids)
    return Row(tokens[:1], tokens[1:]), Row(tokens[:5], tokens[5:8])


def traits_of(client: Client, model: str, ids: Sequence[int]) -> tuple[Traits | None, list[str]]:
    """Find the way in which a server scores given tokens; ``None`` if there is none, with the answer to each.

    Args:
        client: sends requests.
        model: the model's name.
        ids: tokens of ``PROBE``, at least nine.

    Raises:
        ServerError: the server cannot be reached, or refuses the key.
    """
    long, short = probe_rows(ids)
    reasons: list[str] = []
    for dialect in DIALECTS:
        try:
            (alone,) = asked(client, model, dialect, [long], trial=True)
        except RefusedError as refused:
            reasons.append(f"{dialect.name}: refused with {refused}")
        except BadAnswerError as error:
            reasons.append(f"{dialect.name}: answered with {client.quoted(str(error))}")
        else:
            return _measured(client, model, dialect, (long, short), alone), reasons
    return None, reasons


def asked(client: Client, model: str, dialect: Dialect, rows: Sequence[Row], *, trial: bool = False) -> list[LogProbs]:
    """The log-probabilities of some rows, from one request.

    Raises:
        RefusedError: the server refuses the content.
        BadAnswerError: the answer lacks some of them.
        ServerError: the server cannot be reached, refuses the key, or a limit is reached.
    """
    tokens = sum(len(row.prompt) + len(row.target) + 1 for row in rows)
    answer = client.post(dialect.url(client.address), dialect.content(model, rows), tokens, trial=trial)
    return dialect.read(answer, rows)


def _measured(client: Client, model: str, dialect: Dialect, rows: tuple[Row, Row], alone: LogProbs) -> Traits:
    """Ask for both rows together, and compare."""
    long, short = rows
    several, noise, notes = True, 0.0, list[str]()
    together: list[LogProbs] = []
    try:
        # In company of other rows, which is what makes numbers differ.
        together = asked(client, model, dialect, [short, long, *_company(long)], trial=True)
        noise = max(abs(a - b) for a, b in zip(alone, together[1], strict=True))
    except (RefusedError, BadAnswerError) as error:
        several = False
        why = client.quoted(str(error))
        notes.append(f"one prompt in each request, because the server does not take several ({why})")
    if noise > ROUNDING:
        notes.append(
            f"the server's numbers depend on what it computes at the same time: the same row differed by {noise:.2g} "
            "nats between two requests"
        )
    tolerance = max(LEAST_TOLERANCE, TIMES_NOISE * noise)
    reuse = None
    if several and dialect.name == "prompt_logprobs":
        reuse = PrefixReuse.found(client, model, short, together[0], max(ROUNDING, TIMES_NOISE * noise))
    return Traits(dialect, several, Likeness(long, alone, tolerance), tuple(notes), reuse)


def _company(row: Row) -> list[Row]:
    """Other rows of several lengths."""
    ids = (*row.prompt, *row.target)
    return [Row(ids[start : start + 2], ids[start + 2 :]) for start in range(1, len(ids) - 4, 5)]


def _is_name(found: object) -> bool:
    """True for the name of a model that can be sent and shown."""
    return isinstance(found, str) and bool(found) and found.isprintable()
