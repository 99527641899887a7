"""How much of the code one call runs through, counted: what somebody reads who follows it."""

from __future__ import annotations

import sys
from pathlib import Path
from types import FrameType

import apportion as ap
from apportion.testing import tiny

ROOT = Path(__file__).parent.parent
OURS = tuple(str(ROOT / folder) for folder in ("core/apportion", "backends/apportion_backends", "plugins"))


def test_the_path_of_a_call_is_short() -> None:
    files: set[str] = set()
    stacks: list[list[str]] = []

    def watch(frame: FrameType, event: str, _: object) -> None:
        if event != "call" or not frame.f_code.co_filename.startswith(OURS):
            return
        files.add(frame.f_code.co_filename)
        if frame.f_code.co_qualname.endswith("Session.log_probs"):
            above, outer = [], frame.f_back
            while outer is not None:
                if outer.f_code.co_filename.startswith(OURS):
                    above.append(outer.f_code.co_qualname)
                outer = outer.f_back
            stacks.append(above)

    with ap.Explainer((tiny.model(), tiny.tokenizer()), progress=False) as explainer:
        explainer.attribute("one two three", " x", method="kernel_shap")
        sys.setprofile(watch)
        try:
            explainer.attribute("one two three four five six seven", " x", method="kernel_shap")
        finally:
            sys.setprofile(None)
    assert stacks
    assert max(map(len, stacks)) <= 12, max(stacks, key=len)
    counted = [len([file for file in files if file.startswith(folder)]) for folder in OURS]
    assert counted[0] <= 37, sorted(files)
    assert sum(counted) <= 66, sorted(files)
