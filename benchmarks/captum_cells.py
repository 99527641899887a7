"""The cells of Captum's tutorial on language models, with Captum and with ``apportion.captum``: times in one run.

    make bench-captum
    .venv/bin/python -m benchmarks.captum_cells --out benchmarks/results

Each cell is the same code with another import. Captum runs as the tutorial has it, token by token with a cache, which
is wrong with transformers 5, and with ``forward_in_tokens=False``, which is right.
"""

from __future__ import annotations

import argparse
import importlib
import platform
import random
import statistics
import time
import warnings
from collections.abc import Callable, Mapping
from importlib import metadata
from pathlib import Path
from types import ModuleType
from typing import Any

import torch

import apportion as ap

TEXT = "Dave lives in Palm Coast, FL and is a lawyer. His personal interests include"
TARGET = " playing golf, hiking, and cooking."
SLOTS = "{} lives in {}, {} and is a {}. {} personal interests include"
NAMED = "{name} lives in {city}, {state} and is a {occupation}. {pronoun} personal interests include"
VALUES = {"name": "Dave", "city": "Palm Coast", "state": "FL", "occupation": "lawyer", "pronoun": "His"}
OTHERS = ["Sarah", "Seattle", "WA", "doctor", "Her"]
ALTERNATIVES: Mapping[Any, list[Any]] = {
    ("name", "pronoun"): [("Sarah", "Her"), ("John", "His"), ("Martin", "His"), ("Rachel", "Her")],
    ("city", "state"): [("Seattle", "WA"), ("Boston", "MA")],
    "occupation": ["doctor", "engineer", "teacher", "technician", "plumber"],
}
GROUPS = {"name": 0, "city": 1, "state": 1, "occupation": 2, "pronoun": 0}
REVIEWS = [
    "'The movie was ok, the actors weren't great' Negative",
    "'I loved it, it was an amazing story!' Positive",
    "'Total waste of time!!' Negative",
    "'Won't recommend' Negative",
]

Cell = Callable[[ModuleType, Any, Any, dict[str, Any]], Any]


def few_shot(*examples: str) -> str:
    """A prompt with the examples that are there."""
    question = "Is this movie review Positive or Negative?\n'I really liked the Avengers, it had a captivating plot!'\n"
    shown = [example for example in examples if example]
    return "\n".join(["Examples of movie reviews:", *shown, question] if shown else [question]) + "Answer:"


def grouped(lib: ModuleType) -> Any:
    """Three groups of slots, with drawn baselines."""
    return lib.TextTemplateInput(NAMED, VALUES, lib.ProductBaselines(dict(ALTERNATIVES)), mask=GROUPS)


def tokens(lib: ModuleType, model: Any, tokenizer: Any, options: dict[str, Any]) -> Any:
    """Ablation of tokens."""
    wrapper = lib.LLMAttribution(lib.FeatureAblation(model), tokenizer)
    return wrapper.attribute(lib.TextTokenInput(TEXT, tokenizer), target=TARGET, **options)


def template(lib: ModuleType, model: Any, tokenizer: Any, options: dict[str, Any]) -> Any:
    """Ablation of slots that are removed."""
    inp = lib.TextTemplateInput(SLOTS, list(VALUES.values()))
    return lib.LLMAttribution(lib.FeatureAblation(model), tokenizer).attribute(inp, target=TARGET, **options)


def baselines(lib: ModuleType, model: Any, tokenizer: Any, options: dict[str, Any]) -> Any:
    """Ablation of slots that are replaced."""
    inp = lib.TextTemplateInput(SLOTS, list(VALUES.values()), OTHERS)
    return lib.LLMAttribution(lib.FeatureAblation(model), tokenizer).attribute(inp, target=TARGET, **options)


def products(lib: ModuleType, model: Any, tokenizer: Any, options: dict[str, Any]) -> Any:
    """Ablation of groups with drawn baselines, three trials."""
    wrapper = lib.LLMAttribution(lib.FeatureAblation(model), tokenizer)
    return wrapper.attribute(grouped(lib), target=TARGET, num_trials=3, **options)


def shapley(lib: ModuleType, model: Any, tokenizer: Any, options: dict[str, Any]) -> Any:
    """Shapley values of groups with drawn baselines, three trials."""
    wrapper = lib.LLMAttribution(lib.ShapleyValues(model), tokenizer)
    return wrapper.attribute(grouped(lib), target=TARGET, num_trials=3, **options)


def examples(lib: ModuleType, model: Any, tokenizer: Any, options: dict[str, Any]) -> Any:
    """Shapley values of few-shot examples."""
    wrapper = lib.LLMAttribution(lib.ShapleyValues(model), tokenizer)
    return wrapper.attribute(lib.TextTemplateInput(few_shot, REVIEWS), target=" Positive", **options)


def gradients(lib: ModuleType, model: Any, tokenizer: Any, options: dict[str, Any]) -> Any:
    """Layer integrated gradients at the embeddings."""
    method = lib.LayerIntegratedGradients(model, model.model.embed_tokens)
    wrapper = lib.LLMGradientAttribution(method, tokenizer)
    return wrapper.attribute(lib.TextTokenInput(TEXT, tokenizer), target=TARGET)


CELLS: tuple[Cell, ...] = (tokens, template, baselines, products, shapley, examples, gradients)


def seconds(cell: Cell, lib: ModuleType, model: Any, tokenizer: Any, options: dict[str, Any]) -> tuple[Any, float]:
    """The result of a cell, and how long it takes."""
    torch.manual_seed(0)
    random.seed(0)
    started = time.perf_counter()
    found = cell(lib, model, tokenizer, options)
    return found, time.perf_counter() - started


def row(cell: Cell, model: Any, tokenizer: Any) -> str:
    """A row of the table; ours is timed before and after Captum.

    Raises:
        SystemExit: the values differ where both should be right.
    """
    ours, theirs = (importlib.import_module(name) for name in ("apportion.captum", "captum.attr"))
    found, _ = seconds(cell, ours, model, tokenizer, {})
    times = [seconds(cell, ours, model, tokenizer, {})[1] for _ in range(2)]
    right, correct = seconds(cell, theirs, model, tokenizer, {"forward_in_tokens": False})
    default = None if cell is gradients else seconds(cell, theirs, model, tokenizer, {})[1]
    times.append(seconds(cell, ours, model, tokenizer, {})[1])
    off = float((found.token_attr - right.token_attr).abs().max() / right.token_attr.abs().max())
    if cell not in (products, shapley) and not off <= 1e-4:
        raise SystemExit(f"{cell.__name__} differs by {off:.2g} of its largest value.")
    said = "draws differ" if cell in (products, shapley) else f"differs by {off:.0e}"
    mine = statistics.median(times)
    slow = "" if default is None else f"{default:.1f} s, {default / mine:.0f} ×"
    return f"| {cell.__doc__[:-1]} | {mine:.2f} s | {correct:.1f} s, {correct / mine:.1f} × | {slow} | {said} |"


def page(rows: list[str]) -> str:
    """The report in Markdown."""
    versions = ", ".join(f"{name} {metadata.version(name)}" for name in ("torch", "transformers", "captum"))
    return "\n".join(
        [
            "# The cells of Captum's tutorial, with another import",
            "",
            f"Measured by `make bench-captum` on {platform.machine()}, {torch.get_num_threads()} threads, {versions}; "
            "SmolLM2-135M in fp32, 17 prompt and 8 target tokens. One run; `apportion.captum` is the median of three, "
            "before and after Captum.",
            "",
            "| cell | `apportion.captum` | Captum, one pass | Captum as in its tutorial (wrong) | values |",
            "|---|---:|---:|---:|---|",
            *rows,
            "",
            "*One pass* is `forward_in_tokens=False`. With drawn baselines, Captum draws for every forward pass, and "
            "`apportion.captum` once for each trial, so that their values cannot be the same.",
            "",
        ]
    )


def main() -> None:
    """Measure, print and save."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.captum_cells", description=__doc__)
    parser.add_argument("--out", type=Path, help="folder for captum.md (default: print only)")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    with ap.Explainer("smollm2", progress=False) as explainer:
        model, tokenizer = explainer.session.model, explainer.session.tokenizer
        text = page([row(cell, model, tokenizer) for cell in CELLS])
    print(text)
    if arguments.out:
        (arguments.out / "captum.md").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
