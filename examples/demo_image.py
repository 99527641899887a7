"""Demo: which regions of a picture, and which words of a question, made a small image-text model give its answer?"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np
from PIL import Image
from still_life import still_life

import apportion as ap
from apportion.testing.shapes import Scene, Thing, draw

QUESTION = "what colour is the circle ?"
SCENE = Scene((Thing("red", "circle", 0, 1), Thing("blue", "square", 3, 2)))
"""The red circle, in row 1 and column 2, decides the answer."""


def main() -> None:
    """Explain a picture with a known answer, and one like a photograph; save heat maps, a page and numbers."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("out"), help="folder for the pictures")
    out: Path = parser.parse_args().out
    out.mkdir(parents=True, exist_ok=True)
    Image.fromarray(draw(SCENE, np.random.default_rng(1))).save(out / "scene.png")
    still_life().save(out / "photo.png")

    explainer = ap.Explainer("shapes")
    scene = ap.ImageText(str(out / "scene.png"), QUESTION, segments="grid:4x4")
    result = explainer.attribute(scene, method="permutation", budget=600)
    result.show()
    result.plot("image").savefig(out / "scene-regions.png", dpi=150)
    result.plot("html").save(out / "scene.html")
    result.save(out / "scene.json")

    photo = ap.ImageText(str(out / "photo.png"), "describe the picture .", segments="slic:30", text_by=None)
    found = explainer.attribute(photo, method="permutation", budget=600)
    found.plot("image").savefig(out / "photo-regions.png", dpi=150)
    fills = explainer.compare_fills(scene, " red", method="permutation", budget=300)
    fills.plot("image").savefig(out / "scene-fills.png", dpi=150)
    names = "scene-regions.png, scene.html, scene.json, photo-regions.png and scene-fills.png"
    print(f"The model answered {result.whole_target!r} and {found.whole_target!r}. Wrote {names} into {out}.")


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit("interrupted")
