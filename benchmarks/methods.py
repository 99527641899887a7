"""All methods on one prompt, with one budget: their values, what they cost, and their faithfulness.

    make bench-methods
    .venv/bin/python benchmarks/methods.py --budget 64 --out benchmarks/results

Methods that are not registered, and those that refuse the budget or the model, are named in the report.
"""

from __future__ import annotations

import argparse
import platform
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import apportion as ap
from apportion.hooks.manager import installed_plugins

PROMPT, TARGET = "Dave is a lawyer in Palm Coast. He likes", " playing golf"
BUDGET = 64
ORDERS = 20
METRICS = ("deletion", "insertion", "comprehensiveness", "sufficiency", "lds")
PERTURBATION = ("ablation", "occlusion", "permutation", "kernel_shap", "gp_shap", "banzhaf", "lime", "context_cite",
                "reagent")  # fmt: skip
GRADIENT = ("saliency", "input_x_gradient", "integrated_gradients", "gradient_shap", "deeplift",
            "discretized_integrated_gradients", "sequential_integrated_gradients")  # fmt: skip
LAYERS: Mapping[str, Mapping[str, object]] = {
    name: {"layers": "model.embed_tokens"}
    for name in ("layer_integrated_gradients", "layer_gradient_x_activation", "layer_gradient_shap", "layer_deeplift")
}
INTERNALS = ("attention", "value_zeroing")
OPTIONS = {name: {} for name in (*PERTURBATION, *GRADIENT)} | LAYERS | {name: {} for name in INTERNALS}
"""Options of each method that the report compares."""


def attributed(explainer: ap.Explainer, budget: int) -> tuple[list[ap.Attribution], dict[str, str]]:
    """The results of all methods that are registered, and the reason why there is none of each of the others."""
    registered = installed_plugins()["methods"]
    results, missing = [], {}
    for name, options in OPTIONS.items():
        if name not in registered:
            missing[name] = "not registered"
            continue
        try:
            results.append(explainer.attribute(PROMPT, TARGET, method=name, budget=budget, **options))
        except ap.ApportionError as error:
            missing[name] = str(error)
        print(name, missing.get(name, f"{results[-1].provenance.seconds:.2f} s"))
    return results, missing


def table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table, whose first two columns are text."""
    line = "|---|---|" + "---:|" * (len(heads) - 2)
    return "\n".join(["| " + " | ".join(heads) + " |", line, *("| " + " | ".join(row) + " |" for row in rows)])


def values_table(comparison: ap.ResultComparison) -> str:
    """A row for each result, and a column for each feature."""
    heads = ["method", "unit", *comparison.results[0].feature_names]
    rows = [
        [f"`{name}`", result.unit, *(f"{value:{'+' if result.signed else ''}.3g}" for value in result.values)]
        for name, result in zip(comparison.names, comparison.results, strict=True)
    ]
    return table(heads, rows)


def faithfulness_table(found: ap.Comparison) -> str:
    """A row for each result: its cost, and each metric with the share of random orders that it beats."""
    arrows = {True: "↑", False: "↓"}
    metrics = [f"{name} {arrows[found.evaluations[0].higher_is_better[name]]}" for name in found.metrics]
    rows = []
    for name, one in zip(found.names, found.evaluations, strict=True):
        evaluations, tokens, seconds = one.cost
        measured = [f"{one[metric].value:.3g} ({one.percentile(metric):.0%})" for metric in found.metrics]
        rows.append([f"`{name}`", one.estimand, f"{evaluations:,}", f"{tokens:,}", f"{seconds:.2f}", *measured])
    return table(["method", "estimand", "evaluations", "tokens", "seconds", *metrics], rows)


def report(comparison: ap.ResultComparison, found: ap.Comparison, missing: Mapping[str, str], budget: int) -> str:
    """The page."""
    one = comparison.results[0]
    absent = [f"- `{name}`: {why}" for name, why in missing.items()]
    return "\n\n".join(
        [
            "# Methods side by side",
            f"{len(comparison.results)} methods on one prompt, each with a budget of {budget} evaluations: "
            f"“{PROMPT}” → “{TARGET}”. Model: {one.provenance.model}, {one.provenance.device}, "
            f"{platform.machine()}. Written by `make bench-methods`.",
            "## Faithfulness and cost",
            f"In parentheses: the share of {ORDERS} random orders of the same values than which a result is better. "
            "`lds` must not be used to compare different estimands.",
            faithfulness_table(found),
            "## Values",
            "Units and estimands differ. Compare rankings, not sizes; values without signs are magnitudes.",
            values_table(comparison),
            "![Values side by side, and the agreement of each pair](methods.png)",
            *(["## Left out", "\n".join(absent)] if absent else []),
        ]
    )


def main() -> None:
    """Run all methods, and write the report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="smollm2")
    parser.add_argument("--budget", type=int, default=BUDGET)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"))
    given = parser.parse_args()
    with ap.Explainer(given.model, progress=False) as explainer:
        results, missing = attributed(explainer, given.budget)
        comparison = ap.compare(results)
        found = explainer.evaluate(results, metrics=METRICS, random_orders=ORDERS)
        given.out.mkdir(parents=True, exist_ok=True)
        comparison.plot().savefig(given.out / "methods.png", dpi=110)
        text = report(comparison, found, missing, given.budget)
        (given.out / "methods.md").write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
