"""Pictures: where attributions point, whether they are faithful, and times beside Captum's ``ImageMaskInput``.

    make bench-pictures
    .venv/bin/python -m benchmarks.pictures --out benchmarks/results

The model ``shapes`` answers questions about pictures of which it is known which cell decides each word. Pictures are
drawn with a seed; half of them show pairs of things that the model has not seen together in training. Captum runs as its
documentation has it, token by token, and with ``forward_in_tokens=False``.
"""

from __future__ import annotations

import argparse
import platform
import statistics
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import torch

import apportion as ap
from apportion.testing import shapes

FILLS = ("mean", "blur", "noise", "white", "black")
METHODS: Mapping[str, dict[str, Any]] = {
    "ablation": {},
    "permutation": {"budget": 130},
    "gp_shap": {"budget": 130},
    "banzhaf": {"budget": 130},
    "lime": {"budget": 130},
}
EXACT = {"shapley": {"budget": 2**16}}
COLOURS, KINDS = set(shapes.COLOURS), set(shapes.SHAPES)
REPEATS = 9


@dataclass(frozen=True)
class Case:
    """A picture, a question, and for each word of the answer that names a colour or shape, the cell that decides it."""

    pixels: np.ndarray
    question: str
    answer: str
    cells: Mapping[int, int]


def cases(count: int, seed: int = 2026) -> list[Case]:
    """Pictures of two things: a caption, a question for a colour, and one for a shape, in turn."""
    rng, found = np.random.default_rng(seed), []
    while len(found) < count:
        scene = shapes.random_scene(rng, 2)
        if shapes.held_out(scene) != bool(len(found) % 2):
            continue
        kind = ("caption", "colour", "shape")[len(found) % 3]
        asked = shapes.ask(scene, rng, kind)
        if asked.answer == "nothing" or (kind == "colour" and "describe" in asked.text):
            continue
        found.append(Case(shapes.draw(scene, rng), asked.text, asked.answer, _cells(scene, asked.answer)))
    return found


def _cells(scene: shapes.Scene, answer: str) -> dict[int, int]:
    words, found = answer.split(), {}
    for place, word in enumerate(words):
        if word in COLOURS:
            found[place] = next(thing.cell for thing in scene.things if thing.colour == word)
        elif word in KINDS:
            alike = [thing for thing in scene.things if thing.shape == word]
            named = [thing for thing in alike if place and thing.colour == words[place - 1]]
            if named or len(alike) == 1:
                found[place] = (named or alike)[0].cell
    return found


@dataclass
class Score:
    """Sums over words or pictures."""

    hits: int = 0
    words: int = 0
    overlap: float = 0.0
    deletion: float = 0.0
    insertion: float = 0.0
    pictures: int = 0

    def line(self) -> str:
        """Cells of a table."""
        return (
            f"{self.hits / self.words:.3f} | {self.overlap / self.words:.3f} | {self.deletion / self.pictures:.3f} | "
            f"{self.insertion / self.pictures:.3f} | {self.words}"
        )


def measured(
    explainer: ap.Explainer, given: Sequence[Case], method: str, options: Mapping[str, Any], fill: str
) -> Score:
    """Pointing at the right cell, overlap of the highest cells with it, and deletion and insertion curves."""
    score = Score()
    prompts = [
        {"prompt": ap.ImageText(one.pixels, one.question, fill=fill, text_by=None), "target": f" {one.answer}"}
        for one in given
    ]
    for one, result in zip(given, explainer.attribute_many(prompts, method=method, **options), strict=True):
        for word, cell in one.cells.items():
            values = result.token_values[word]
            score.words += 1
            score.hits += int(values.argmax()) == cell
            marked = set(np.flatnonzero(values >= 0.5 * values.max()).tolist()) if values.max() > 0 else set()
            score.overlap += len(marked & {cell}) / max(1, len(marked | {cell}))
        found = explainer.evaluate(result, ["deletion", "insertion"], random_orders=2)
        score.deletion += found["deletion"].value
        score.insertion += found["insertion"].value
        score.pictures += 1
    return score


def pointing(count: int, exact: int) -> Iterator[str]:
    """Tables of methods and of fills."""
    given = cases(count)
    with ap.Explainer("shapes", backend="torch", progress=False) as explainer:
        answers = [explainer.attribute(ap.ImageText(one.pixels, one.question, text_by=None), method="ablation") for one in given]
        right = sum(found.whole_target.split("</s>")[0].strip() == one.answer for found, one in zip(answers, given, strict=True))
        yield f"The model's own answer is right for {right} of {count} pictures, half of which show pairs that it has never seen."
        yield ""
        head = "| pointing | IoU | deletion | insertion | words |"
        yield f"| method (fill: mean) {head}"
        yield "|---|---|---|---|---|---|"
        for method, options in METHODS.items():
            yield f"| {method} | {measured(explainer, given, method, options, 'mean').line()} |"
        for method, options in EXACT.items():
            yield f"| {method}, exact, {exact} pictures | {measured(explainer, given[:exact], method, options, 'mean').line()} |"
        yield ""
        yield f"| fill (method: ablation) {head}"
        yield "|---|---|---|---|---|---|"
        for fill in FILLS:
            yield f"| {fill} | {measured(explainer, given, 'ablation', {}, fill).line()} |"
        yield ""
        yield f"| fill (method: permutation) {head}"
        yield "|---|---|---|---|---|---|"
        for fill in FILLS:
            yield f"| {fill} | {measured(explainer, given, 'permutation', METHODS['permutation'], fill).line()} |"
        agreement = []
        for one in given[:40]:
            prompt = ap.ImageText(one.pixels, one.question, text_by=None)
            agreement.append(explainer.compare_fills(prompt, f" {one.answer}", fills=FILLS, method="ablation").top_overlap(1))
        yield ""
        yield f"Share of {len(agreement)} pictures on whose highest cell two fills agree (ablation of the whole answer):"
        yield ""
        yield f"| | {' | '.join(FILLS)} |"
        yield f"|---|{'---|' * len(FILLS)}"
        for name, row in zip(FILLS, np.mean(agreement, axis=0), strict=True):
            yield f"| {name} | {' | '.join(f'{share:.2f}' for share in row)} |"


def beside_captum() -> Iterator[str]:
    """Times of ablation with Captum and with apportion, in turn, and the largest difference of their values."""
    import captum.attr
    from PIL import Image
    from transformers import AutoModelForImageTextToText, AutoProcessor

    import apportion.captum
    from apportion.models.shapes import shapes_model_path

    folder = str(shapes_model_path())
    model = AutoModelForImageTextToText.from_pretrained(folder).eval()
    processor: Any = AutoProcessor.from_pretrained(folder)
    one = cases(1)[0]
    content = [{"type": "image"}, {"type": "text", "text": one.question}]
    text = processor.apply_chat_template([{"role": "user", "content": content}])

    def arguments(image: Any) -> Any:
        return processor(images=image, text=text, return_tensors="pt", add_special_tokens=False)

    explainer = ap.Explainer((model, processor), backend="torch", progress=False)
    yield "| regions | Captum, default | Captum, one pass | facade | `ap.ImageText` | one pass ÷ facade | one pass ÷ `ap.ImageText` | default ÷ facade | largest difference, facade | largest difference, default |"
    yield "|---|---|---|---|---|---|---|---|---|---|"
    for side in (4, 8):
        mask = torch.tensor(np.kron(np.arange(side * side).reshape(side, side), np.ones((64 // side,) * 2, int)))

        def run(lib: Any, wrapper: Any, **options: Any) -> Any:
            # A new function each time, so that nothing processed before is used again.
            given = lib.ImageMaskInput(
                Image.fromarray(one.pixels), mask=mask, baseline=(128, 128, 128), processor_fn=lambda im: arguments(im)
            )
            return wrapper.attribute(given, target=f" {one.answer}", **options)

        theirs = captum.attr.LLMAttribution(captum.attr.FeatureAblation(model), processor.tokenizer)
        ours = apportion.captum.LLMAttribution(apportion.captum.FeatureAblation(model), processor.tokenizer)
        prompt = ap.ImageText(
            one.pixels, one.question, segments=f"grid:{side}x{side}", fill=(128, 128, 128), text_by=None
        )
        ways: Mapping[str, Callable[[], Any]] = {
            "default": lambda: run(captum.attr, theirs),
            "one pass": lambda: run(captum.attr, theirs, forward_in_tokens=False),
            "facade": lambda: run(apportion.captum, ours),
            "native": lambda: explainer.attribute(prompt, f" {one.answer}", method="ablation"),
        }
        found, seconds = {name: way() for name, way in ways.items()}, {name: [] for name in ways}
        for _ in range(REPEATS):
            for name, way in ways.items():
                started = time.perf_counter()
                way()
                seconds[name].append(time.perf_counter() - started)
        median = {name: statistics.median(times) for name, times in seconds.items()}
        right = found["one pass"].token_attr
        off, wrong = (float((found[name].token_attr - right).abs().max()) for name in ("facade", "default"))
        yield (
            f"| {side * side} | {' | '.join(f'{1e3 * median[name]:.1f} ms' for name in ways)} | "
            f"{median['one pass'] / median['facade']:.1f} | {median['one pass'] / median['native']:.1f} | "
            f"{median['default'] / median['facade']:.1f} | {off:.1e} | {wrong:.1e} |"
        )


def main() -> None:
    """Measure, print and write the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, help="folder for pictures.md")
    parser.add_argument("--pictures", type=int, default=200, help="number of pictures")
    parser.add_argument("--exact", type=int, default=4, help="number of pictures with exact Shapley values")
    given = parser.parse_args()
    warnings.filterwarnings("ignore")
    versions = ", ".join(f"{name} {metadata.version(name)}" for name in ("apportion", "captum", "torch", "transformers"))
    lines = [
        "# Pictures",
        "",
        f"`python -m benchmarks.pictures`: {versions}; Python {platform.python_version()}, {torch.get_num_threads()} "
        "threads of a CPU. GPU: not measured.",
        "",
        "Pointing: share of words that name a colour or a shape whose highest cell is the cell of that thing (chance: "
        "1 in 16). IoU: of that cell and those with at least half of the highest value. Deletion (lower is better) and "
        "insertion (higher is better): areas under the curves of the whole answer.",
        "",
    ]
    for line in pointing(given.pictures, given.exact):
        print(line, flush=True)
        lines.append(line)
    lines += ["", "## Beside Captum", "", "Ablation of one picture; medians of times taken in turn.", ""]
    for line in beside_captum():
        print(line, flush=True)
        lines.append(line)
    if given.out is not None:
        (given.out / "pictures.md").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
