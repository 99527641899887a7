"""Fidelity of a graph in lower precision: the agreement of its attributions with those of PyTorch in fp32."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from jaxtyping import Float
from scipy.stats import spearmanr

from apportion.protocols.batch import ScoringBatch
from apportion.protocols.row import Row
from apportion.scoring.prefix_tree import in_tree_order
from apportion_backends.onnxruntime.export.prompts import PROMPTS
from apportion_backends.onnxruntime.packed_graph import PackedGraph
from apportion_backends.torch.session import TorchSession

__all__ = ["fidelity"]

TOP = 3
LONG = 8
"""Prompts that make a long one."""
ROWS, PART = 24, 3
"""About so many rows of it are scored together, and then so many at a time."""
ScoreRows = Callable[[list[Row]], np.ndarray]


def fidelity(graph: PackedGraph, session: TorchSession) -> dict[str, float]:
    """Compare the effect of each word of built-in prompts: the log-probability that its removal costs the target.

    Returns:
        ``spearman`` and ``spearman_least``, mean and least rank correlation of the effects in a prompt; ``same_top_3``,
        the share of prompts whose three strongest words are the same; ``largest_error``, the largest difference of a
        target's log-probability in nats; ``jitter``, the largest difference of a target's log-probability between a
        large batch and small ones, which is rounding that 8-bit numbers amplify; and ``prompts``, their number.
    """
    limit = session.info.context_length
    correlations, same, worst = [], 0, 0.0
    for text, target in PROMPTS:
        rows = _ablated(session, text, target)
        if limit is not None and max(len(row.prompt) + len(row.target) for row in rows) > limit:
            continue
        ours = _in_tree_order(rows, graph.log_probs)
        graph.release()
        theirs = _in_tree_order(
            rows, lambda part: session.log_probs(ScoringBatch(tuple(part), packed=_packs(session))).numpy()
        )
        session.release()
        worst = max(worst, float(np.abs(ours - theirs).max()))
        effects, expected = ours[0] - ours[1:], theirs[0] - theirs[1:]
        correlations.append(float(spearmanr(effects, expected).statistic))
        same += _top(effects) == _top(expected)
    return {
        "spearman": float(np.mean(correlations)),
        "spearman_least": float(np.min(correlations)),
        "same_top_3": same / len(correlations),
        "largest_error": worst,
        "jitter": _jitter(graph, session),
        "prompts": float(len(correlations)),
    }


def _jitter(graph: PackedGraph, session: TorchSession) -> float:
    """Largest difference between scores of long prompts in one batch, and in small ones that continue each other."""
    text = " ".join(text + target for text, target in PROMPTS[:LONG])
    rows = _ablated(session, text, PROMPTS[LONG][1])
    rows = rows[:: max(1, len(rows) // ROWS)]
    limit = session.info.context_length
    if limit is not None:
        rows = [Row(row.prompt[: limit - len(row.target)], row.target) for row in rows]

    def in_parts(part: list[Row]) -> np.ndarray:
        return np.concatenate([graph.log_probs(part[i : i + PART]) for i in range(0, len(part), PART)])

    together = _in_tree_order(rows, graph.log_probs)
    graph.release()
    apart = _in_tree_order(rows, in_parts)
    graph.release()
    return float(np.abs(together - apart).max())


def _packs(session: TorchSession) -> bool:
    layout = session.layout
    return layout.packing and layout.packing_limit is None


def _ablated(session: TorchSession, text: str, target: str) -> list[Row]:
    """The prompt, and the prompt without each of its words."""
    words = text.split()
    texts = [text, *(" ".join(words[:i] + words[i + 1 :]) for i in range(len(words)))]
    answer = tuple(session.tokenizer(target, add_special_tokens=False)["input_ids"])
    return [Row(tuple(session.tokenizer(one)["input_ids"]), answer) for one in texts]


def _in_tree_order(rows: list[Row], score: ScoreRows) -> Float[np.ndarray, " B"]:
    """Log-probability of the whole target of each row."""
    order = in_tree_order(rows)
    found = np.empty(len(rows))
    found[order] = score([rows[i] for i in order]).sum(1, dtype=np.float64)
    return found


def _top(effects: np.ndarray) -> set[int]:
    return set(np.argsort(-np.abs(effects), kind="stable")[:TOP].tolist())
