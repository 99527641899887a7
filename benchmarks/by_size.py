"""Shapley estimators on games of 5 to 2,000 features: what ``method="auto"`` chooses by."""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from large_games import LargeGame, prompt_games, synthetic_games

import apportion as ap
from apportion_plugins.methods.ablation import Ablation
from apportion_plugins.methods.gp_shap import GaussianProcessShap
from apportion_plugins.methods.hierarchical import Hierarchical
from apportion_plugins.methods.kernel_shap import KernelShap
from apportion_plugins.methods.permutation import PermutationShapley
from apportion_plugins.samplers.informative import InformativeSampler
from apportion_plugins.samplers.kernel import KernelSampler
from apportion_plugins.samplers.leverage import LeverageSampler

__all__ = ["measure", "section"]

SIZES = (5, 8, 12, 20, 30, 50, 100, 200)
LONG = (200, 600, 2000)
TIMES = (1.5, 2, 3, 4, 8, 16)
"""Budgets per feature; at 2, there are two more evaluations, for standard errors."""

MOST = 1024
"""The default budget of ``method="auto"``."""

WORDS, SENTENCES = 10, 5
"""Features of a sentence, and sentences of a paragraph, in long games."""

Methods = Mapping[str, tuple[Any, dict[str, Any]]]
DRILL = (Hierarchical, {"scores": "owen", "branching": 2})
MAIN: Methods = {
    "gp_shap": (GaussianProcessShap, {"sampler": InformativeSampler()}),
    "kernel_shap": (KernelShap, {"sampler": LeverageSampler()}),
    "permutation": (PermutationShapley, {}),
}
SHAPLEY: Methods = {
    **MAIN,
    "gp_shap, leverage": (GaussianProcessShap, {"sampler": LeverageSampler()}),
    "kernel_shap, kernel": (KernelShap, {"sampler": KernelSampler()}),
    "permutation, single": (PermutationShapley, {"antithetic": False}),
    "hierarchical, owen": DRILL,
}
ON_PROMPTS: Methods = {**MAIN, "hierarchical, owen": DRILL}
CHEAP: Methods = {
    "hierarchical, owen": DRILL,
    "hierarchical, owen, 8 parts": (Hierarchical, {"scores": "owen"}),
    "permutation, single": SHAPLEY["permutation, single"],
    "ablation": (Ablation, {}),
}
Record = dict[str, Any]


def measure(seeds: int, folder: Path, kinds: Sequence[str] = ("sizes", "long", "prompts")) -> list[Record]:
    """Collect the errors of all estimators on all games of these kinds."""
    records = []
    for n in SIZES if "sizes" in kinds else ():
        for game, seed in itertools.product(synthetic_games(n), range(seeds)):
            records += _records("sizes", game, SHAPLEY, _budgets(n), seed)
    for n in LONG if "long" in kinds else ():
        for game, seed in itertools.product(synthetic_games(n), range(seeds)):
            records += _records("long", game, CHEAP, {"256": 256, "1024": MOST}, seed)
    for prompt in prompt_games(folder) if "prompts" in kinds else ():
        budgets = {label: budget for label, budget in _budgets(prompt.n).items() if budget <= 8 * prompt.n}
        for seed in range(seeds):
            records += _records("prompts", prompt, ON_PROMPTS, budgets, seed, reference=prompt.reference_error)
    return records


def _budgets(n: int) -> dict[str, int]:
    found = {f"{times:g}n": math.ceil(times * n) + (2 if times == 2 else 0) for times in TIMES}
    return {label: budget for label, budget in found.items() if budget < 2**n and budget <= MOST}


def _records(
    kind: str, game: LargeGame, methods: Methods, budgets: Mapping[str, int], seed: int, **more: float
) -> list[Record]:
    found = []
    for who, (method, options) in methods.items():
        for label, budget in budgets.items():
            asked = ap.Game.from_function(game, game.n, budget=budget)
            asked.levels = _levels(game.n) if kind == "long" else ()
            run = partial(method().run, asked, budget=budget, rng=torch.Generator().manual_seed(seed), **options)
            started = time.perf_counter()
            try:
                values = run().values[:, 0].numpy()
            except ap.BudgetError:
                continue
            seconds = time.perf_counter() - started
            error = float(((values - game.shapley) ** 2).sum() / (game.shapley**2).sum())
            found.append({"kind": kind, "game": game.name, "n": game.n, "who": who, "budget": label, "error": error,
                          "seconds": seconds, **more})  # fmt: skip
    return found


def _levels(n: int) -> tuple[ap.Level, ...]:
    """Paragraphs and sentences of a text with ``n`` words."""
    found = []
    for name, size in (("paragraphs", WORDS * SENTENCES), ("sentences", WORDS)):
        groups = tuple(i // size for i in range(n))
        found.append(ap.Level(name, groups, tuple(f"{name} {g}" for g in range(groups[-1] + 1))))
    return tuple(found)


def section(records: Sequence[Record]) -> str:
    """The part of the page on games of other sizes."""
    sizes = [r for r in records if r["kind"] == "sizes"]
    parts = [
        "## From 5 to 2,000 features",
        "Three synthetic games of each size whose Shapley values are known in closed form: a score that saturates, "
        "facts that several features state, and sets of up to five strong features that interact. Noise that depends "
        "on the whole coalition has 10 % of their standard deviation. The tables show the geometric means of the error "
        f"over the games; `–`: the budget is too small, covers all coalitions, or is above {MOST:,}, the default of "
        "`auto`. `hierarchical` computes Owen values, another quantity; here they count as estimates of Shapley "
        "values.",
    ]
    for label in (f"{times:g}n" for times in TIMES):
        rows = [r for r in sizes if r["budget"] == label]
        parts.append(_table(f"budget {'2n + 2' if label == '2n' else label}", "n", SIZES, rows))
    parts.append(
        "Long prompts, with sentences of 10 words and paragraphs of 5 sentences. Strong words may be anywhere, which "
        "is the hardest case for drilling down."
    )
    for label in ("256", "1024"):
        rows = [r for r in records if r["kind"] == "long" and r["budget"] == label]
        parts.append(_table(f"budget {label}", "n", LONG, rows))
    prompts = [r for r in records if r["kind"] == "prompts"]
    known = {f"{r['game']} (n = {r['n']})": r["reference"] for r in prompts}
    parts.append(
        "Two real prompts whose words are removed, compared with reference values from 256 evaluations per feature, "
        f"which have errors of their own: {', '.join(f'{name} {error:.2g}' for name, error in known.items())}."
    )
    labels = [label for times in TIMES if (label := f"{times:g}n") in {r["budget"] for r in prompts}]
    for game in dict.fromkeys(r["game"] for r in prompts):
        rows = [r for r in prompts if r["game"] == game]
        parts.append(_table(game, "budget", labels, rows))
    parts.append(
        "Seconds that the estimators take themselves, at the largest budget of each size: the quickest run, one thread."
    )
    parts.append(_times([r for r in sizes if r["who"] in MAIN]))
    return "\n\n".join(parts)


def _table(title: str, by: str, columns: Sequence[Any], records: Sequence[Record]) -> str:
    lines = [f"| {title} | {' | '.join(f'{by} = {c}' if by == 'n' else str(c) for c in columns)} |",
             "|---|" + "---:|" * len(columns)]  # fmt: skip
    for who in dict.fromkeys(r["who"] for r in records):
        cells = [_mean([r for r in records if r["who"] == who and r[by] == column]) for column in columns]
        lines.append(f"| {who} | {' | '.join('–' if c is None else f'{c:.2g}' for c in cells)} |")
    return "\n".join(lines)


def _mean(records: Sequence[Record]) -> float | None:
    """Geometric mean over games of the mean error over seeds."""
    games = dict.fromkeys(r["game"] for r in records)
    errors = [np.mean([r["error"] for r in records if r["game"] == game]) for game in games]
    return float(np.exp(np.log(errors).mean())) if errors else None


def _times(records: Sequence[Record]) -> str:
    lines = [f"| seconds | {' | '.join(f'n = {n}' for n in SIZES)} |", "|---|" + "---:|" * len(SIZES)]
    for who in dict.fromkeys(r["who"] for r in records):
        mine = [r for r in records if r["who"] == who]
        largest = {n: [r["budget"] for r in mine if r["n"] == n][-1] for n in SIZES}
        cells = [min(r["seconds"] for r in mine if r["n"] == n and r["budget"] == largest[n]) for n in SIZES]
        lines.append(f"| {who} | {' | '.join(f'{c:.2g}' for c in cells)} |")
    return "\n".join(lines)
