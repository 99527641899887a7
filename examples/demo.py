"""Demo: which parts of a prompt about Dave made a small language model name these hobbies?"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import apportion as ap

TARGET = " playing golf, hiking, and cooking."


def prompt() -> ap.Template:
    """A template with five slots in three features; slots that belong together are perturbed together."""
    return ap.Template(
        "{name} lives in {city}, {state} and is a {job}. {pronoun} personal interests include",
        values={"name": "Dave", "city": "Palm Coast", "state": "FL", "job": "lawyer", "pronoun": "His"},
        baselines={"name": "Sarah", "city": "Seattle", "state": "WA", "job": "doctor", "pronoun": "Her"},
        groups=[("name", "pronoun"), ("city", "state")],
    )


def main() -> None:
    """Explain the target, show the result, and save its heat map and numbers."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("out"), help="folder for dave.png and dave.json")
    out: Path = parser.parse_args().out
    out.mkdir(parents=True, exist_ok=True)

    explainer = ap.Explainer("smollm2")
    result = explainer.attribute(prompt(), TARGET, method="shapley")
    result.show()
    result.plot("heatmap").savefig(out / "dave.png", dpi=150, bbox_inches="tight")
    result.save(out / "dave.json")
    print(f"Wrote {out / 'dave.png'} and {out / 'dave.json'}.")


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit("interrupted")
