"""Reruns the code of the tutorials on the demo model, and updates the output in the pages and the plots in images/.

A test checks that the output in the pages is what their code prints, up to rounding.
"""

from __future__ import annotations

import contextlib
import io
import re
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

DOCS = Path(__file__).parent
PAGES = tuple(
    f"tutorials/{name}.md"
    for name in ("model-associations", "few-shot-examples", "layers", "captum-notebook", "captum-bias")
)
BLOCK = re.compile(r"^```python\n(?P<code>.*?)^```\n(?:\n```text\n(?P<output>.*?)^```\n)?", flags=re.S | re.M)
IMAGE = re.compile(r"\]\(\.\./images/([^)]+\.png)\)")
NUMBER = re.compile(r"[+−-]?\d+(?:\.\d+)?")


def printed(page: str, text: str) -> Iterator[tuple[str, str]]:
    """Run the blocks of a page in one namespace, and yield the output in the page and the actual output of each."""
    namespace: dict[str, object] = {"__name__": "page"}
    for block in BLOCK.finditer(text):
        output = io.StringIO()
        with contextlib.redirect_stdout(output):
            exec(compile(block["code"], page, "exec"), namespace)
        yield block["output"] or "", output.getvalue()


def same(said: str, prints: str) -> bool:
    """True if all words are equal and numbers differ by at most 1 in the last place, as after rounding."""
    if NUMBER.sub("#", said).split() != NUMBER.sub("#", prints).split():
        return False
    pairs = zip(NUMBER.findall(said), NUMBER.findall(prints), strict=True)
    return all(_close(*(number.replace("−", "-") for number in pair)) for pair in pairs)


def _close(said: str, prints: str) -> bool:
    if "." not in said:
        return said == prints
    places = len(said.partition(".")[2])
    return abs(float(said) - float(prints)) < 1.5 * 10**-places


def main(folder: Path) -> None:
    """Update pages and plots; cached scores stay in ``folder``."""
    for page in PAGES:
        path = DOCS / page
        text = path.read_text(encoding="utf-8")
        with contextlib.chdir(folder):
            outputs = iter([prints for _, prints in printed(page, text)])

        def block(found: re.Match[str], outputs: Iterator[str] = outputs) -> str:
            prints = re.sub(r" +$", "", next(outputs), flags=re.M)
            return f"```python\n{found['code']}```\n" + (f"\n```text\n{prints}```\n" if prints else "")

        path.write_text(BLOCK.sub(block, text), encoding="utf-8")
        for name in IMAGE.findall(text):
            shutil.copy(folder / name, DOCS / "images" / name)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as scratch:
        main(Path(scratch))
