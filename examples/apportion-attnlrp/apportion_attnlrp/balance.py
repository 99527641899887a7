"""The balance of relevance: what enters at the output arrives at the tokens, or something is known to absorb it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field, fields

import torch
from torch import Tensor

from apportion_attnlrp.rules import relevance, watched

__all__ = ["Account", "Balance"]


@dataclass(frozen=True)
class Account:
    """Relevance of one output, in one forward pass.

    Attributes:
        explained: what enters, at the output of the last normalisation.
        tokens: what arrives at the embeddings of all tokens.
        softmax: what the softmax of attention absorbs: the constant of its Taylor expansion.
        biases: what biases absorb.
        positions: what learned embeddings of positions absorb.
        error: what is lost or gained otherwise; 0 up to rounding if every operation follows its rule.
        size: sum over all tokens of the size of their relevance, whatever its sign.
    """

    explained: float = 0.0
    tokens: float = 0.0
    softmax: float = 0.0
    biases: float = 0.0
    positions: float = 0.0
    error: float = 0.0
    size: float = 0.0

    @property
    def share_lost(self) -> float:
        """The error, as a share of the relevance that was passed on."""
        return self.error / max(self.size, abs(self.explained), 1e-300)

    def __add__(self, other: Account) -> Account:
        return Account(*(getattr(self, one.name) + getattr(other, one.name) for one in fields(Account)))


@dataclass
class _Books:
    """What the backward passes of one forward pass see: totals by place of each that ended, and of the open one."""

    ended: list[dict[str, Tensor]] = field(default_factory=list)
    open: dict[str, Tensor] = field(default_factory=dict)


class Balance:
    """Totals of relevance at places in the model, for each backward pass of each forward pass."""

    def __init__(self) -> None:
        self._passes: list[_Books] = []
        self.learned_positions = False

    def begin(self, embeddings: Tensor) -> Tensor:
        """Begin a forward pass with the embeddings of all tokens. Each of its backward passes ends here."""
        books = _Books()
        self._passes.append(books)

        def close(x: Tensor, gradient: Tensor) -> None:
            each = (x.double() * gradient.double()).sum(-1)
            books.open |= {"tokens": each.sum(), "size": each.abs().sum()}
            books.ended.append(books.open)
            books.open = {}

        return watched(embeddings, close)

    def watch(self, place: str, x: Tensor, factor: float = 1.0) -> Tensor:
        """Return a tensor whose relevance is multiplied by a factor, and then counted."""
        return watched(x, self._counted(place), factor)

    def watch_bias(self, y: Tensor, bias: Tensor) -> Tensor:
        """Return a tensor to which a bias was added, and count the relevance of the bias."""
        count = self._counted("bias")
        return watched(y, lambda _, gradient: count(bias.detach(), gradient))

    def accounts(self) -> list[list[Account]]:
        """The accounts of each forward pass, one for each backward pass that reached it."""
        return [[self._settled(seen) for seen in books.ended] for books in self._passes]

    def _counted(self, place: str) -> Callable[[Tensor, Tensor], None]:
        books = self._passes[-1]

        def count(x: Tensor, gradient: Tensor) -> None:
            found = relevance(x, gradient)
            books.open[place] = books.open[place] + found if place in books.open else found

        return count

    def _settled(self, seen: dict[str, Tensor]) -> Account:
        total: dict[str, float] = defaultdict(float, {place: float(torch.as_tensor(x)) for place, x in seen.items()})
        softmax = error = 0.0
        for layer in (place.removeprefix("heads of ") for place in seen if place.startswith("heads of ")):
            heads, value, query, key = (total[f"{part} of {layer}"] for part in ("heads", "value", "query", "key"))
            softmax += heads - value - query - key
            # Values share equally with weights, and queries with keys.
            error += abs(value - heads / 2) + abs(query - key)
        positions = total["layers"] - total["tokens"] if self.learned_positions else 0.0
        lost = total["output"] - total["tokens"] - softmax - total["bias"] - positions
        return Account(
            total["output"], total["tokens"], softmax, total["bias"], positions, error + abs(lost), total["size"]
        )
