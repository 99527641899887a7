"""Signatures are true: the whole pipeline runs with every annotated shape and type checked.

In a process of its own, because the checks are put in when modules are imported, and because other tests
pass wrong types on purpose.
"""

from __future__ import annotations

from forks import Forks

PROGRAM = """
import sys
from jaxtyping import install_import_hook
install_import_hook(["apportion", "apportion_backends", "apportion_plugins"], "beartype.beartype")
from apportion.testing import tiny
from apportion.testing.chats import TOOLS
import apportion as ap
from rich.console import Console
from apportion_backends.torch.session import TorchSession

explainer = ap.Explainer((tiny.model(), tiny.tokenizer()))
prompts = [
    ap.Text("one two three", by="tokens", baseline=3),
    ap.Text("one two three. four", by="sentences", keep=[0]),
    ap.Template("{a} and {b} {c}", {"a": "x", "b": "y", "c": "z"}, {"a": ["p", "q"]}, groups=[("b", "c")]),
    ap.Chat([{"role": "user", "content": "one. two"}], "words", chat_template=TOOLS, tools=[{"name": "clock"}]),
    ap.Documents("one", {"a": "two. three"}, "sentences", as_chat=True, chat_template=TOOLS),
]
for prompt in prompts:
    for method in ("auto", "ablation", "permutation"):
        for target in (None, " t", [1, 2]):
            result = explainer.attribute(prompt, target, method=method, target_fn="prob", budget=64)
            assert result.token_values.shape == (len(result.target_tokens), len(result.features))
    for view in ("heatmap", "bar", "html", "terminal"):
        Console(quiet=True).print(result.plot(view))
pairs = explainer.attribute("a b c d e", "x", method="interactions", features="words", budget=28)
for view in ("matrix", "network"):
    pairs.plot(view, token=0)
for options in ({}, {"scores": "owen", "orders": 4}):
    text = ap.Text("a b. c d e.", by="words")
    drilled = explainer.attribute(text, "x", method="hierarchical", budget=24, **options)
    drilled.plot("tree", token=0)
    Console(quiet=True).print(drilled.plot("terminal"))
many = explainer.attribute_many(prompts, target=" t", method="ablation")
assert [len(result.features) for result in many] == [len(explainer.attribute(p, " t").features) for p in prompts]
result = explainer.attribute("one two three four", " t")
evaluation = explainer.evaluate(result)
evaluation.plot()
Console(quiet=True).print(explainer.plugins["visualizers"].get("terminal").make().render_evaluations([evaluation]))
mamba = ap.Explainer((tiny.model("mamba"), tiny.tokenizer()))
mamba.attribute("one two", "x", method="shapley")
batch = ap.ScoringBatch.of([(1, 2, 3), (1, 2, 3, 4)], (5, 6), prefix_length=1)
assert explainer.session.log_probs(batch).shape == (2, 2)
assert next(explainer.session.logits(batch, 2)).shape[:2] == (2, 2)
try:
    TorchSession.log_probs(explainer.session, 3)
except Exception as error:
    assert "ScoringBatch" in str(error), error
else:
    raise SystemExit("the checks are not in place")
print("all shapes hold")
"""


def test_the_pipeline_keeps_its_signatures(forks: Forks) -> None:
    done = forks.run(PROGRAM)
    assert done.stdout.strip() == "all shapes hold", done.stderr[-3000:]
