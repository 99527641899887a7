"""Host time outside scoring: 64 features, 2,048 evaluations, made-up values.

    .venv/bin/python benchmarks/overhead.py --repeats 3 --out benchmarks/results

Measures the seconds spent on splitting the prompt (adapting), drawing coalitions, turning them into text (rendering)
and the text into token ids (tokenising), on the game's bookkeeping, and on fitting. Batch planning and the model are
not included.
"""

from __future__ import annotations

import argparse
import platform
import random
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from typing import Any, ClassVar

import torch

import apportion as ap
from apportion.game.game import Game
from apportion.hooks.manager import load_plugins
from apportion.models.demo import demo_model_path
from apportion.rendering.context import AdaptContext
from apportion.rendering.renderer import Renderer
from apportion.runs.resolver import with_sampler

FEATURES, EVALUATIONS, OUTPUTS = 64, 2048, 9
PARTS = ("adapting", "drawing", "rendering", "tokenising", "game", "fitting")
METHODS = ("kernel_shap", "gp_shap", "permutation", "context_cite", "banzhaf", "lime")
NOUNS = ("lawyer", "river", "garden", "window", "engine", "letter", "market", "winter", "teacher", "bridge", "planet")
VERBS = ["finds", "paints", "leaves", "carries", "watches", "repairs", "remembers", "follows", "sells", "describes"]


def sentence(draw: random.Random, words: int) -> str:
    """A sentence of ``words`` words, or one more."""
    middle = [draw.choice(NOUNS if i % 2 else VERBS) for i in range(words - 2)]
    return f"The {draw.choice(NOUNS)} {' '.join(middle)} near {draw.randrange(100)}."


def prompts() -> dict[str, object]:
    """Prompts of every kind, each with 64 features."""
    draw = random.Random(0)
    sentences = [sentence(draw, 12) for _ in range(FEATURES)]
    slots = {f"s{i}": draw.choice(NOUNS) for i in range(FEATURES)}
    baselines = {slot: draw.choice(NOUNS) for slot in slots}
    examples = {f"e{i}": f"Review: {text}\nLabel: positive" for i, text in enumerate(sentences)}
    turns = [{"role": ("user", "assistant")[i % 2], "content": text} for i, text in enumerate(sentences)]
    quarters = [" ".join(sentences[i : i + 16]) for i in range(0, FEATURES, 16)]
    few_turns = [{"role": ("user", "assistant")[i % 2], "content": text} for i, text in enumerate(quarters)]
    asked = {"role": "user", "content": "What happens next?"}
    return {
        "text, words": ap.Text(" ".join(f"{a} {b}" for a, b in (s.split()[1:3] for s in sentences[:32]))),
        "text, sentences": ap.Text(" ".join(sentences), by="sentences"),
        "text, tokens": ap.Text(" ".join(draw.choice(NOUNS) for _ in range(FEATURES)), by="tokens"),
        "template, 64 slots": ap.Template(" and the ".join(f"{{{slot}}}" for slot in slots) + ".", slots, baselines),
        "few-shot function": ap.Template(lambda **e: "\n\n".join([*filter(None, e.values()), "Review:"]), examples),
        "documents": ap.Documents("What happens next?", sentences),
        "documents, in a chat": ap.Documents("What happens next?", sentences, as_chat=True),
        "chat, sentences": ap.Chat([*few_turns, asked], by="sentences", keep=["What happens next?"]),
        "chat, turns": ap.Chat([*turns, asked], by="turns"),
    }


class Clock:
    """Seconds in each of several nested parts; the time of inner parts is not counted in outer ones."""

    def __init__(self) -> None:
        self.seconds = dict.fromkeys(PARTS, 0.0)
        self._open: list[str] = []
        self._since = 0.0

    @contextmanager
    def inside(self, part: str | None) -> Iterator[None]:
        """Attribute time to this part; ``None`` for no part."""
        self._turn()
        self._open.append(part or "")
        yield
        self._turn()
        self._open.pop()

    def _turn(self) -> None:
        now = time.perf_counter()
        if self._open and self._open[-1]:
            self.seconds[self._open[-1]] += now - self._since
        self._since = now

    def around(self, part: str | None, function: Callable[..., Any]) -> Callable[..., Any]:
        """Wrap a function so that its time is attributed to this part."""

        def timed(*args: Any, **options: Any) -> Any:
            with self.inside(part):
                return function(*args, **options)

        return timed


class TimedContext(AdaptContext):
    """A context whose encoding counts as tokenising."""

    clock: ClassVar[Clock]

    def encode(self, texts: Sequence[str], *, special_tokens: bool = True) -> list[tuple[int, ...]]:
        """As ``AdaptContext``."""
        with self.clock.inside("tokenising"):
            return super().encode(texts, special_tokens=special_tokens)


class TimedSampler:
    """A sampler whose calls count as drawing."""

    def __init__(self, sampler: Any, clock: Clock) -> None:
        self.sample = clock.around("drawing", sampler.sample)


class TimedGame(Game):
    """A game whose calls count as bookkeeping of the game."""

    clock: Clock

    def values(self, mask: torch.Tensor) -> torch.Tensor:
        """As ``Game``."""
        with self.clock.inside("game"):
            return super().values(mask)


def measured(plugins: Any, tokenizer: Any, prompt: object, name: str) -> tuple[dict[str, float], int]:
    """Host seconds of one run by part, and its number of distinct inputs."""
    clock = Clock()
    with clock.inside("adapting"):
        TimedContext.clock = clock
        adapter = plugins.hook.apportion_adapt_input(prompt=prompt, context=TimedContext(tokenizer))
    assert len(adapter.features) == FEATURES, f"{prompt!r:.80} has {len(adapter.features)} features"
    draw = torch.Generator().manual_seed(0)

    def score(inputs: list[Any]) -> torch.Tensor:
        return -0.5 - torch.rand(len(inputs), OUTPUTS, generator=draw, dtype=torch.float64)

    renderer = Renderer(adapter, AdaptContext(tokenizer))
    names = [feature.name for feature in adapter.features]
    game = TimedGame(names, OUTPUTS, clock.around("rendering", renderer), clock.around(None, score))
    game.clock = clock
    method = plugins["methods"].get(name).make()
    options = with_sampler(method.run, {}, plugins["samplers"])
    if "sampler" in options:
        options["sampler"] = TimedSampler(options["sampler"], clock)
    with clock.inside("fitting"):
        method.run(game, budget=EVALUATIONS, rng=torch.Generator().manual_seed(0), **options)
    return clock.seconds, game.evaluations


def medians(runs: list[dict[str, float]]) -> dict[str, float]:
    """Median seconds of each part."""
    return {part: statistics.median(run[part] for run in runs) for part in PARTS}


def table(title: str, rows: dict[str, tuple[dict[str, float], int]]) -> list[str]:
    """Render seconds by part as a Markdown table."""
    head = f"| {title} | evaluations | {' | '.join(PARTS)} | all |"
    lines = [head, f"|---|{'---:|' * (len(PARTS) + 2)}"]
    for name, (seconds, evaluations) in rows.items():
        cells = " | ".join(f"{seconds[part]:.3f}" for part in PARTS)
        lines.append(f"| {name} | {evaluations:,} | {cells} | {sum(seconds.values()):.3f} |")
    return lines


def main() -> None:
    """Measure every prompt with one method, and every method with one prompt."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--only", help="only prompts and methods whose name contains this")
    parser.add_argument("--out", type=Path, help="folder for overhead.md")
    given = parser.parse_args()
    from transformers import AutoTokenizer

    tokenizer, plugins = AutoTokenizer.from_pretrained(demo_model_path()), load_plugins(())

    def run(prompt: object, method: str) -> tuple[dict[str, float], int]:
        done = [measured(plugins, tokenizer, prompt, method) for _ in range(given.repeats)]
        return medians([seconds for seconds, _ in done]), done[0][1]

    kinds = {name: prompt for name, prompt in prompts().items() if not given.only or given.only in name}
    methods = [name for name in METHODS if not given.only or given.only in name]
    by_prompt = {name: run(prompt, "banzhaf") for name, prompt in kinds.items()}
    by_method = {name: run(prompts()["text, words"], name) for name in methods}
    versions = ", ".join(f"{p} {metadata.version(p)}" for p in ("apportion", "torch", "tokenizers"))
    about = (
        f"{FEATURES} features, {EVALUATIONS:,} evaluations, the tokenizer of SmolLM2, made-up values. Seconds, medians "
        f"of {given.repeats} runs; {torch.get_num_threads()} threads, {platform.machine()}, Python "
        f"{platform.python_version()}, {versions}."
    )
    lines = ["# Host time outside scoring", "", about, ""]
    lines += [*table("prompt, with `banzhaf`", by_prompt), "", *table("method, on words", by_method)]
    print("\n".join(lines))
    if given.out:
        (given.out / "overhead.md").write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
