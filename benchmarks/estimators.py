"""Shapley estimators on ten real games: squared error against evaluations, for apportion, shap and Captum.

    make bench-estimators
    .venv/bin/python benchmarks/estimators.py --seeds 30 --out benchmarks/results

Every game is a prompt for SmolLM2-135M. All its coalitions are scored once (about 20 minutes on 2 cores) and kept in
``--tables``. The estimators then run on the stored values: coalitions are counted. Apportion's own also run on games of
other sizes (``by_size.py``).
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import torch
from by_size import measure as measure_sizes
from by_size import section as sizes_section
from peers import PEERS
from real_games import TableGame, real_games

import apportion as ap
from apportion_plugins.methods.gp_shap import GaussianProcessShap
from apportion_plugins.methods.kernel_shap import KernelShap
from apportion_plugins.methods.permutation import PermutationShapley
from apportion_plugins.samplers.informative import InformativeSampler
from apportion_plugins.samplers.kernel import KernelSampler
from apportion_plugins.samplers.leverage import LeverageSampler

MULTIPLES = (2, 3, 4, 6, 8, 12, 16)
AIM_AT = 4
SIZE_SEEDS = 2
"""Seeds on games of other sizes."""

DEVELOPED_ON = ("person", "trip", "capital", "story")
"""Games used while ``gp_shap`` was developed; the other six were held out."""

OURS: dict[str, tuple[type[Any], dict[str, Any]]] = {
    "gp_shap": (GaussianProcessShap, {"sampler": InformativeSampler()}),
    "gp_shap, leverage": (GaussianProcessShap, {"sampler": LeverageSampler()}),
    "kernel_shap": (KernelShap, {"sampler": LeverageSampler()}),
    "kernel_shap, kernel": (KernelShap, {"sampler": KernelSampler()}),
    "permutation": (PermutationShapley, {}),
    "permutation, single": (PermutationShapley, {"antithetic": False}),
}
Record = dict[str, Any]


def our_records(game: TableGame, seed: int) -> list[Record]:
    """Records of apportion's estimators, one per estimator and budget."""
    records = []
    for who, (method, options) in OURS.items():
        for times in MULTIPLES:
            asked = ap.Game.from_function(game, game.n)
            rng = torch.Generator().manual_seed(seed)
            estimate = method().run(asked, budget=times * game.n, rng=rng, **options)
            miss = np.abs(estimate.values[:, 0].numpy() - game.shapley)
            error = estimate.std_error[:, 0].numpy()
            inside = None if np.isnan(error).any() else float((miss <= 1.96 * error).mean())
            records.append(_record(who, times, miss, game, asked.evaluations, asked.evaluations, inside))
    return records


def their_records(game: TableGame, seed: int) -> list[Record]:
    """Records of the peers, one per peer and budget that it can meet."""
    records = []
    for who, peer in PEERS.items():
        answers = peer(game, [times * game.n for times in MULTIPLES], seed)
        for budget, answer in answers.items():
            miss = np.abs(answer.values - game.shapley)
            records.append(_record(who, budget // game.n, miss, game, answer.distinct, answer.calls, None))
    return records


def _record(
    who: str, times: int, miss: np.ndarray, game: TableGame, distinct: int, calls: int, inside: float | None
) -> Record:
    assert distinct <= times * game.n, (who, times, distinct)
    error = float((miss**2).sum() / (game.shapley**2).sum())
    return {"game": game.case.name, "who": who, "times": times, "error": error, "distinct": distinct / game.n,
            "calls": calls / game.n, "inside": inside}  # fmt: skip


def measure(game: TableGame, seeds: int) -> list[Record]:
    """Collect all records of one game."""
    torch.set_num_threads(1)
    return [record for seed in range(seeds) for record in our_records(game, seed) + their_records(game, seed)]


class Results:
    """Records, and statistics of them."""

    def __init__(self, records: Sequence[Record]) -> None:
        self.games = list(dict.fromkeys(r["game"] for r in records))
        self._of: dict[tuple[str, int, str], list[Record]] = {}
        for record in records:
            self._of.setdefault((record["who"], record["times"], record["game"]), []).append(record)

    def errors(self, who: str, times: int, games: Sequence[str] | None = None) -> np.ndarray | None:
        """Normalised mean squared errors over seeds, one per game; ``None`` if a game has no record."""
        found = [self._of.get((who, times, game)) for game in games or self.games]
        if not all(found):
            return None
        return np.array([np.mean([r["error"] for r in records]) for records in found if records])

    def mean(self, what: str, who: str, times: int) -> float | None:
        """Mean of ``distinct``, ``calls`` or ``inside`` over games and seeds."""
        found = [r[what] for game in self.games for r in self._of.get((who, times, game), []) if r[what] is not None]
        return float(np.mean(found)) if found else None


def geometric(values: np.ndarray) -> float:
    """Geometric mean, which weights all games equally, however large their errors."""
    return float(np.exp(np.log(values).mean()))


SUMMARIES: dict[str, Callable[[np.ndarray], float]] = {
    "mean": lambda values: float(values.mean()),
    "median": lambda values: float(np.median(values)),
    "geometric mean": geometric,
}


def table(results: Results, summary: str) -> str:
    """Table of the errors of all estimators at all budgets."""
    lines = [f"| {summary} over games | {' | '.join(f'{t}n' for t in MULTIPLES)} |", "|---|" + "---:|" * len(MULTIPLES)]
    for who in (*OURS, *PEERS):
        errors = [results.errors(who, times) for times in MULTIPLES]
        cells = ["–" if e is None else f"{SUMMARIES[summary](e):.2g}" for e in errors]
        lines.append(f"| {_shown(who)} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _shown(who: str) -> str:
    return f"**{who}**" if who in OURS else who


def by_game(results: Results, games: Sequence[TableGame]) -> str:
    """Table of the errors for each game at the budget of the target ratio."""
    lines = [
        "| game | features are | n | orders 1, 2, 3+ | gp_shap | kernel_shap | best peer | | ratio |",
        "|---|---|---:|---:|---:|---:|---:|---|---:|",
    ]
    for game in games:
        name = game.case.name
        peers = {who: results.errors(who, AIM_AT, [name]) for who in PEERS}
        best, who = min((float(e[0]), who) for who, e in peers.items() if e is not None)
        ours, plain = (float(results.errors(who, AIM_AT, [name])[0]) for who in ("gp_shap", "kernel_shap"))
        first, second, *rest = game.orders()
        orders = f"{first:.0%}, {second:.0%}, {sum(rest):.0%}"
        cells = (name, game.case.kind, str(game.n), orders, f"{ours:.2g}", f"{plain:.2g}", f"{best:.2g}", who,
                 f"{ours / best:.2f}")  # fmt: skip
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def ratios(results: Results) -> str:
    """Table of ratios of ``gp_shap`` to the best single peer at each budget."""
    lines = [f"| gp_shap ÷ best single peer | {' | '.join(f'{t}n' for t in MULTIPLES)} |",
             "|---|" + "---:|" * len(MULTIPLES)]  # fmt: skip
    unseen = [game for game in results.games if game not in DEVELOPED_ON]
    for label, games in (("all ten games", results.games), (f"the {len(unseen)} held out", unseen)):
        for summary, reduce in SUMMARIES.items():
            cells = []
            for times in MULTIPLES:
                found = [e for e in (results.errors(who, times, games) for who in PEERS) if e is not None]
                ours = results.errors("gp_shap", times, games)
                cells.append(f"{reduce(ours) / min(map(reduce, found)):.2f}" if ours is not None and found else "–")
            lines.append(f"| {summary}, {label} | {' | '.join(cells)} |")
    return "\n".join(lines)


def counts(results: Results) -> str:
    """Tables of evaluations used at the budget of the target ratio, and of coverage."""
    lines = [f"| at {AIM_AT}n | distinct coalitions ÷ n | calls ÷ n |", "|---|---:|---:|"]
    for who in (*OURS, *PEERS):
        asked = [results.mean(what, who, AIM_AT) for what in ("distinct", "calls")]
        lines.append(f"| {_shown(who)} | " + " | ".join("–" if a is None else f"{a:.2f}" for a in asked) + " |")
    cover = [f"| 95 % coverage | {' | '.join(f'{t}n' for t in MULTIPLES)} |", "|---|" + "---:|" * len(MULTIPLES)]
    for who in OURS:
        shares = [results.mean("inside", who, times) for times in MULTIPLES]
        cover.append(f"| {who} | " + " | ".join("–" if s is None else f"{s:.0%}" for s in shares) + " |")
    return "\n".join(lines) + "\n\n" + "\n".join(cover)


def report(results: Results, games: Sequence[TableGame], seeds: int) -> str:
    """Render the whole page."""
    names = ("apportion", "shap", "captum", "torch", "numpy", "transformers")
    packages = ", ".join(f"{name} {metadata.version(name)}" for name in names)
    parts = [
        "# Estimators of Shapley values on real games",
        f"Ten prompts for SmolLM2-135M, 8–12 features each, all 2ⁿ values known; {seeds} seeds. Error: "
        f"‖φ̂ − φ‖² ÷ ‖φ‖², mean over seeds. Python {platform.python_version()}, {packages}. One run of "
        "`make bench-estimators`.",
        "![Error against evaluations](estimators.png)",
        ratios(results),
        "Budgets count *distinct* coalitions. Every peer gets its largest setting within the budget; repeated "
        "coalitions are free. shap's KernelExplainer runs without its feature selection, which is its default and "
        'shown in the row "10 features". At 2n its regression may be singular; the plot ends at 2. `–`: no setting '
        f"fits. `gp_shap` was developed on the games {', '.join(DEVELOPED_ON)}; the other six were held out.",
        *(table(results, summary) for summary in SUMMARIES),
        f"Results for each game at {AIM_AT}n. Orders are the shares of single features, pairs and larger sets in the "
        "variance over all coalitions.",
        by_game(results, games),
        counts(results),
        "Intervals are ± 1.96 standard errors, where an estimator gives them.",
    ]
    return "\n\n".join(parts) + "\n"


def plot(results: Results, path: Path) -> None:
    """Plot geometric means against budgets on logarithmic axes, apportion solid and peers dashed."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    left_out = ("permutation, single", "shap KernelExplainer, 10 features")
    shown = [who for who in (*OURS, *PEERS) if who not in left_out]
    colours = dict(zip(shown, ["#c1272d", "#e8853b", "#0b61a4", "#5fa8d3", "#2a7f4f", "#444444", "#8a63b3", "#999999",
                               "#b08d57"], strict=True))  # fmt: skip
    figure, axes = plt.subplots(figsize=(9, 5.2), layout="constrained")
    ends = []
    for who in shown:
        points = [(t, geometric(e)) for t in MULTIPLES if (e := results.errors(who, t)) is not None]
        x, y = zip(*points, strict=True)
        style = {"linestyle": "-", "marker": "o"} if who in OURS else {"linestyle": "--", "marker": "s"}
        axes.plot(x, y, color=colours[who], linewidth=2.6 if who == "gp_shap" else 1.6, markersize=4, **style)
        ends.append((np.log(y[-1]), who))
    axes.set(xscale="log", yscale="log", xlabel="distinct evaluations ÷ number of features",
             ylabel="squared error ÷ ‖φ‖², geometric mean over games",
             title="Shapley values of ten real prompts: error against evaluations")  # fmt: skip
    axes.set_xticks(MULTIPLES, [str(t) for t in MULTIPLES])
    axes.minorticks_off()
    axes.set_xlim(1.85, 40)
    axes.set_ylim(top=2)  # a peer's singular regressions at 2n are far above
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    bottom, top = np.log(axes.get_ylim())
    place, step = -np.inf, (top - bottom) / 24
    for height, who in sorted(ends):
        place = max(height, place + step)
        axes.annotate(who if who in PEERS else f"apportion {who}", (MULTIPLES[-1], np.exp(height)),
                      (17.2, np.exp(place)), color=colours[who], va="center", fontsize=9,
                      fontweight="bold" if who == "gp_shap" else "normal")  # fmt: skip
    figure.savefig(path, dpi=150)


def main() -> None:
    """Measure, print the page, and save it if ``--out`` is given."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--seeds", type=int, default=30)
    parser.add_argument("--workers", type=int, default=2, help="number of single-threaded processes")
    parser.add_argument("--tables", type=Path, default=Path("out/estimators"), help="folder for the values of games")
    parser.add_argument("--records", type=Path, help="file of records; written if it does not exist")
    parser.add_argument("--out", type=Path, help="folder for estimators.md and estimators.png")
    arguments = parser.parse_args()
    games = real_games(arguments.tables)
    records: dict[str, list[Record]] = {}
    if arguments.records and arguments.records.exists():
        records = json.loads(arguments.records.read_text())
    else:
        records["games"] = []
        with ProcessPoolExecutor(arguments.workers) as pool:
            for game, found in zip(games, pool.map(partial(measure, seeds=arguments.seeds), games), strict=True):
                print(f"{game.case.name}: {len(found)} runs", file=sys.stderr)
                records["games"] += found
        torch.set_num_threads(1)
        records["sizes"] = measure_sizes(SIZE_SEEDS, arguments.tables)
        if arguments.records:
            arguments.records.write_text(json.dumps(records))
    results = Results(records["games"])
    page = report(results, games, arguments.seeds) + "\n" + sizes_section(records["sizes"]) + "\n"
    print(page)
    if arguments.out:
        arguments.out.mkdir(parents=True, exist_ok=True)
        (arguments.out / "estimators.md").write_text(page)
        plot(results, arguments.out / "estimators.png")


if __name__ == "__main__":
    main()
