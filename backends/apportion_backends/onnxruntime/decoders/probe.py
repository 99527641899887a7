"""Trial of a decoder: which batches give the numbers of rows alone."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from apportion.errors import ModelError, counted
from apportion_backends.onnxruntime.decoders.graph import DecoderGraph, Tokens

__all__ = ["LENGTH", "DecoderTraits", "allowed_difference", "probe_decoder", "same_logits", "same_when_cut"]

ROWS = 3
LENGTH = 9
"""Tokens of the rows that are tried; batches with longer ones are watched."""
FP32, FP16 = 1e-3, 0.05
"""Largest difference between two ways to compute the same logits, in units of their standard deviation."""


@dataclass(frozen=True, slots=True)
class DecoderTraits:
    """Layouts that give the numbers of rows alone.

    Attributes:
        batching: rows of one length may share a batch.
        padding: rows of different lengths may, padded on the right.
        prefix_sharing: a prefix may be read once.
        past_in_batches: several rows may be read after it at once.
    """

    batching: bool
    padding: bool
    prefix_sharing: bool
    past_in_batches: bool

    def notes(self) -> tuple[str, ...]:
        """Sentences for results."""
        if not self.batching:
            return ("this model gives other numbers in a batch; rows are scored one at a time",)
        if not self.padding:
            return ("padding changes this model's numbers; batches hold rows of one length",)
        return ()


def probe_decoder(graph: DecoderGraph, vocabulary: int, name: str) -> DecoderTraits:
    """Compare batches of random tokens with rows alone.

    Args:
        graph: the decoder.
        vocabulary: number of token ids.
        name: name of the file, for messages.

    Raises:
        ModelError: the graph fails, or its logits are not finite, not those of each position, or depend on later
            tokens.
    """
    draw = np.random.default_rng(0)
    low = vocabulary // 4
    rows: list[Tokens] = [
        tuple(draw.integers(low, max(low + 1, vocabulary - low), size=LENGTH).tolist()) for _ in range(ROWS)
    ]
    rows = [rows[0], rows[0][:4] + rows[1][4:], rows[2]]
    alone = [_logits(graph, [row], 0, name)[0] for row in rows]
    allowed = allowed_difference(graph, alone[0])
    if not all(np.isfinite(one).any(-1).all() for one in alone):
        raise ModelError(f"The logits of {name!r} are not finite on random tokens. The file may be damaged.")
    if all((one >= 0).all() and np.allclose(one.sum(-1), 1, atol=1e-3) for one in alone):
        raise ModelError(
            f"The output 'logits' of {name!r} holds probabilities: they are not negative and add up to 1. Export the "
            "model without its softmax."
        )
    other = (*rows[0][:-1], rows[2][0])
    if not same_logits(_logits(graph, [other], 0, name)[0][:-1], alone[0][:-1], allowed):
        raise ModelError(
            f"{name!r} is not a causal language model: its logits depend on later tokens, so a target scored in one "
            "pass would see itself. Models whose activations are quantised by one scale (quantize_dynamic) are of this "
            "kind; use a model with quantised weights only."
        )

    def holds(lengths: tuple[int, ...], shared: int = 0, *, at_once: bool = True) -> bool:
        batch = [row[:length] for row, length in zip(rows, lengths, strict=False)]
        try:
            found = _logits(graph.varied(past_in_batches=at_once), batch, shared, name)
        except ModelError:  # an operator takes no such batch
            return False
        expected = [one[shared : len(row)] for one, row in zip(alone, batch, strict=False)]
        return all(same_logits(ours, one, allowed) for ours, one in zip(found, expected, strict=True))

    long, short = LENGTH, LENGTH - 3
    batching = holds((long, long, long))
    padding = batching and holds((long, short, long))
    has_past = bool(graph.signature.past)
    # Some models count the tokens of a row by its mask, and take padding behind a prefix for a part of it.
    together = has_past and batching and holds((long, long), 4) and (not padding or holds((long, short), 4))
    apart = has_past and not together and holds((long, short), 4, at_once=False)
    return DecoderTraits(batching, padding, together or apart, past_in_batches=together)


def same_when_cut(cut: DecoderGraph, whole: DecoderGraph, vocabulary: int) -> bool:
    """True if a graph whose head was cut gives the logits of the whole graph."""
    draw = np.random.default_rng(1)
    rows = [tuple(draw.integers(vocabulary, size=5).tolist()) for _ in range(2)]
    try:
        expected, found = (graph.logits(rows, [[4, 1], [2]]) for graph in (whole, cut))
    except Exception:  # the graph computes with the shape of its logits
        return False
    return all(same_logits(a, b, allowed_difference(whole, b)) for a, b in zip(found, expected, strict=True))


def _logits(graph: DecoderGraph, rows: list[Tokens], shared: int, name: str) -> list[np.ndarray]:
    """Logits at all positions behind the shared ones."""
    try:
        return graph.logits(rows, [range(shared, len(row)) for row in rows], rows[0][:shared])
    except ModelError:
        raise
    except Exception as error:  # ONNX Runtime has an exception class for each of its codes
        raise ModelError(
            f"{name!r} cannot be scored: it fails on {counted(len(rows), 'row')} of up to "
            f"{counted(max(map(len, rows)), 'token')}: "
            f"{' '.join(str(error).split()):.200}"
        ) from error


def allowed_difference(graph: DecoderGraph, logits: np.ndarray) -> float:
    """Largest difference between two ways to compute such logits."""
    finite = logits[np.isfinite(logits)]
    half = np.float16 in (graph.signature.logits, graph.signature.past_dtype)
    return float((FP16 if half else FP32) * (finite.std() or 1.0))


def same_logits(ours: np.ndarray, reference: np.ndarray, allowed: float) -> bool:
    """True if logits differ by no more than is allowed; equal infinities do not differ."""
    if ours.shape != reference.shape:
        return False
    with np.errstate(invalid="ignore"):
        difference = np.where(ours == reference, 0, np.abs(ours - reference))
    return bool((difference <= allowed).all())
