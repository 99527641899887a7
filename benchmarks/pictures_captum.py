"""Ablation of a picture with Captum's ``ImageMaskInput``, its facade in apportion, and ``ap.ImageText``: times.

    make bench-pictures
    .venv/bin/python -m benchmarks.pictures_captum --out benchmarks/results

Captum runs as its documentation has it, token by token, and with ``forward_in_tokens=False``, in one pass.

The floor is what no way through ``ImageMaskInput`` can do without: the user's processor called for the picture of each
coalition, one at a time as the function is written, and one forward pass of the model for all of them.
"""

from __future__ import annotations

import argparse
import platform
import statistics
import time
import warnings
from collections.abc import Callable, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

import captum.attr
import numpy as np
import torch
from benchmarks.pictures import cases
from PIL import Image
from transformers import AutoModelForImageTextToText, AutoProcessor

import apportion as ap
import apportion.captum
from apportion.models.shapes import shapes_model_path

REPEATS = 15


class BesideCaptum:
    """Ablation of one picture with Captum and with apportion.

    Args:
        side: number of regions in each direction.
    """

    HEAD = (
        "| regions | Captum, default | Captum, one pass | facade | `ap.ImageText` | floor | default ÷ facade "
        "| one pass ÷ facade | one pass ÷ `ap.ImageText` | one pass ÷ floor "
        "| largest difference from one pass: facade | default |"
    )

    def __init__(self, side: int) -> None:
        folder, self._case, self._side = str(shapes_model_path()), cases(1)[0], side
        model = AutoModelForImageTextToText.from_pretrained(folder).eval()
        self._processor: Any = AutoProcessor.from_pretrained(folder)
        content = [{"type": "image"}, {"type": "text", "text": self._case.question}]
        self._text = self._processor.apply_chat_template([{"role": "user", "content": content}])
        self._mask = torch.tensor(np.kron(np.arange(side * side).reshape(side, side), np.ones((64 // side,) * 2, int)))
        self._libraries = {"theirs": captum.attr, "ours": apportion.captum}
        self._wrappers = {
            name: lib.LLMAttribution(lib.FeatureAblation(model), self._processor.tokenizer)
            for name, lib in self._libraries.items()
        }
        self._explainer = ap.Explainer((model, self._processor), backend="torch", progress=False)
        given = self._libraries["theirs"].ImageMaskInput(
            Image.fromarray(self._case.pixels), mask=self._mask, baseline=(128, 128, 128), processor_fn=lambda one: one
        )
        one_absent = (1 - torch.eye(side * side)).split(1)
        self._pictures = [given.image, *(given.to_model_input(present) for present in one_absent)]
        self._target = self._processor.tokenizer(f" {self._case.answer}", add_special_tokens=False)["input_ids"]
        self._model = model

    def _arguments(self, image: Any) -> Any:
        return self._processor(images=image, text=self._text, return_tensors="pt", add_special_tokens=False)

    def _floor(self) -> torch.Tensor:
        """Scores of the target's tokens after each coalition, from what cannot be left out."""
        rows = [self._arguments(one) for one in self._pictures]
        joined = {name: torch.cat([row[name] for row in rows]) for name in rows[0]}
        target = torch.tensor(self._target)
        if len(target) > 1:
            more = target[:-1].expand(len(rows), -1)
            joined["input_ids"] = torch.cat([joined["input_ids"], more], 1)
            joined["attention_mask"] = torch.cat([joined["attention_mask"], torch.ones_like(more)], 1)
        with torch.no_grad():
            logits = self._model(**joined, logits_to_keep=len(target)).logits
        return logits.log_softmax(-1)[:, torch.arange(len(target)), target]

    def _run(self, name: str, **options: Any) -> Any:
        def arguments(image: Any) -> Any:
            return self._arguments(image)

        # A new function each time, so that nothing processed before is used again.
        given = self._libraries[name].ImageMaskInput(
            Image.fromarray(self._case.pixels), mask=self._mask, baseline=(128, 128, 128), processor_fn=arguments
        )
        return self._wrappers[name].attribute(given, target=f" {self._case.answer}", **options)

    def _native(self) -> Any:
        segments = f"grid:{self._side}x{self._side}"
        prompt = ap.ImageText(
            self._case.pixels, self._case.question, segments=segments, fill=(128, 128, 128), text_by=None
        )
        return self._explainer.attribute(prompt, f" {self._case.answer}", method="ablation")

    def line(self) -> str:
        """Median times, taken in turn, their ratios, and the largest differences of values of tokens."""
        ways: Mapping[str, Callable[[], Any]] = {
            "default": lambda: self._run("theirs"),
            "one pass": lambda: self._run("theirs", forward_in_tokens=False),
            "facade": lambda: self._run("ours"),
            "native": self._native,
            "floor": self._floor,
        }
        found = {name: way() for name, way in ways.items()}
        seconds: dict[str, list[float]] = {name: [] for name in ways}
        for _ in range(REPEATS):
            for name, way in ways.items():
                started = time.perf_counter()
                way()
                seconds[name].append(time.perf_counter() - started)
        median = {name: statistics.median(times) for name, times in seconds.items()}
        right = found["one pass"].token_attr
        floor = found["floor"]
        assert torch.allclose((floor[0] - floor[1:]).T.flatten(), right.flatten().float(), atol=1e-4), "other scores"
        off = [float((found[name].token_attr - right).abs().max()) for name in ("facade", "default")]
        ratios = [("default", "facade"), ("one pass", "facade"), ("one pass", "native"), ("one pass", "floor")]
        return (
            f"| {self._side**2} | {' | '.join(f'{1e3 * median[name]:.1f} ms' for name in ways)} | "
            f"{' | '.join(f'{median[one] / median[other]:.1f}' for one, other in ratios)} | "
            f"{' | '.join(f'{value:.1e}' for value in off)} |"
        )


def main() -> None:
    """Measure, print and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, help="folder for pictures_captum.md")
    out: Path | None = parser.parse_args().out
    warnings.filterwarnings("ignore")
    packages = ("apportion", "captum", "torch", "transformers")
    versions = ", ".join(f"{name} {metadata.version(name)}" for name in packages)
    threads = torch.get_num_threads()
    lines = [
        "# Pictures beside Captum",
        "",
        f"`python -m benchmarks.pictures_captum`: {versions}; Python {platform.python_version()}, {threads} threads of "
        "a CPU. GPU: not measured.",
        "",
        "Ablation of a picture of 64 × 64 pixels with the model `shapes` (0.6 million parameters); medians of "
        f"{REPEATS} runs taken in turn. The floor is the user's processor, called for the picture of each coalition, "
        "and one forward pass for all of them: no way through `ImageMaskInput` can do without.",
        "",
        BesideCaptum.HEAD,
        f"|{'---|' * BesideCaptum.HEAD.count(' |')}",
    ]
    for side in (4, 8):
        lines.append(BesideCaptum(side).line())
        print(lines[-1], flush=True)
    if out is not None:
        (out / "pictures_captum.md").write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
