"""Context reliance: numbers against brute force and Inseq, its cost, refusals, files, views and the command."""

from __future__ import annotations

import functools
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import apportion as ap
from apportion.cli import main
from apportion.testing import reference, tiny
from apportion.testing.echo import EchoBackend, EchoSession, echo_spec

CONTEXT, INPUT, OUTPUT = "ab cd ef.", "gh ij", " kl mnop"
T = len(OUTPUT)


def ids_of(text: str) -> tuple[int, ...]:
    return tuple(tiny.tokenizer()(text)["input_ids"])


def logits(prompt: str) -> torch.Tensor:
    """After one prompt, read whole in float64."""
    return reference.logits(tiny.model(), ids_of(prompt), ids_of(OUTPUT))


def echo(**options: Any) -> tuple[ap.Explainer, EchoSession]:
    explainer = ap.Explainer(echo_spec(), backend=EchoBackend(**options), progress=False)
    assert isinstance(explainer.session, EchoSession)
    return explainer, explainer.session


def brute_force(context: list[str], text: str) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Divergences, contextless tokens, and the contrast of each token without each part of the context."""
    ids = torch.tensor(ids_of(OUTPUT))
    whole, without = logits(" ".join([*context, text])), logits(text)
    p, q = without.log_softmax(-1), whole.log_softmax(-1)
    alternatives = without.argmax(-1)
    own = without.softmax(-1)[torch.arange(T), ids]

    def contrast(table: torch.Tensor) -> torch.Tensor:
        probabilities = table.softmax(-1)
        other = torch.where(alternatives == ids, own, probabilities[torch.arange(T), alternatives])
        return probabilities[torch.arange(T), ids] - other

    left = [contrast(logits(" ".join([*context[:i], *context[i + 1 :], text]))) for i in range(len(context))]
    effects = contrast(whole) - torch.stack(left, 1).T
    return (p.exp() * (p - q)).sum(-1), alternatives, effects.T


def test_numbers_are_those_of_brute_force(explainer: ap.Explainer) -> None:
    found = explainer.context_reliance(INPUT, OUTPUT, context=CONTEXT, method="ablation", threshold=None)
    divergence, alternatives, effects = brute_force(CONTEXT.split(), INPUT)
    assert found.sensitive.all(), "all of them differ at all"
    np.testing.assert_allclose(found.scores, divergence, atol=1e-9)
    np.testing.assert_allclose(found.attribution.token_values, effects, atol=1e-9)
    np.testing.assert_allclose(found.attribution.values, effects.sum(0), atol=1e-9)
    assert (
        list(found.contextless_tokens)
        == [
            tiny.tokenizer().decode([i]) or tiny.tokenizer().convert_ids_to_tokens(int(i))
            for i in alternatives.tolist()
        ]
        or len(found.contextless_tokens) == T
    )
    own = torch.tensor(ids_of(OUTPUT))
    for array, prompt in ((found.probabilities, f"{CONTEXT} {INPUT}"), (found.contextless_probabilities, INPUT)):
        np.testing.assert_allclose(array, logits(prompt).softmax(-1)[torch.arange(T), own], atol=1e-9)


def test_where_the_model_says_the_same_without_the_context(explainer: ap.Explainer) -> None:
    """The output is what the model writes without the context; then each token is compared with itself there."""
    written = explainer.attribute(INPUT, method="ablation", generate={"max_new_tokens": 4})
    ids = list(explainer.target_of(written))
    found = explainer.context_reliance(INPUT, ids, context=CONTEXT, method="ablation", threshold=None)
    assert list(found.contextless_tokens) == list(found.tokens)
    plain = explainer.attribute(
        ap.Text(f"{CONTEXT} {INPUT}", keep=["gh", "ij"]), ids, method="ablation", target_fn="prob"
    )
    np.testing.assert_allclose(found.attribution.token_values, plain.token_values, atol=1e-9)


@pytest.mark.parametrize("name", ["contrast_logits_diff", "contrast_log_prob_diff", "contrast_logits", "log_prob"])
def test_any_function_of_tokens_is_attributed(explainer: ap.Explainer, name: str) -> None:
    """Beside one run for each token, whose target ends with it, and whose contrast differs in it alone."""
    chosen: dict[str, Any] = {"method": "ablation", "target_fn": name}
    found = explainer.context_reliance(INPUT, OUTPUT, context=CONTEXT, threshold=None, **chosen)
    prompt, ids = ap.Text(f"{CONTEXT} {INPUT}", keep=["gh", "ij"]), ids_of(OUTPUT)
    said = logits(INPUT).argmax(-1).tolist()
    for t, one in enumerate(said):
        contrast = [*ids[:t], one] if name.startswith("contrast") else None
        if contrast == list(ids[: t + 1]):
            continue
        alone = explainer.attribute(prompt, list(ids[: t + 1]), contrast=contrast, **chosen)
        np.testing.assert_allclose(found.attribution.token_values[t], alone.token_values[t], atol=1e-9)


def test_two_passes_find_the_tokens_and_one_run_their_cues() -> None:
    explainer, session = echo()
    found = explainer.context_reliance(INPUT, OUTPUT, context=CONTEXT, method="ablation", threshold=None)
    decode = session.tokenizer.decode
    read = [decode(row.prompt) for batch in session.asked for row in batch]
    assert read[:2] == [f"{CONTEXT} {INPUT}", INPUT]
    assert len(read) == 2 + 4, "then the full prompt, and the prompt without each of three words"
    assert found.attribution.provenance.evaluations == len(read)
    nothing = explainer.context_reliance(INPUT, OUTPUT, context=CONTEXT, method="ablation", threshold=1e6)
    assert len(session.asked) - len(read) <= 2
    assert not nothing.sensitive.any() and not nothing.attribution.token_values.any()
    assert nothing.attribution.provenance.evaluations == 2 and nothing.sensitive_tokens == ()


def test_thresholds_are_deviations_above_the_mean(explainer: ap.Explainer) -> None:
    ask = functools.partial(explainer.context_reliance, INPUT, OUTPUT, context=CONTEXT, method="ablation")
    found = ask()
    assert found.threshold == pytest.approx(found.scores.mean() + found.scores.std(ddof=1))
    np.testing.assert_array_equal(found.sensitive, found.scores >= found.threshold)
    assert 0 < found.sensitive.sum() < T
    assert ask(threshold=0.0).sensitive.sum() == (found.scores >= found.scores.mean()).sum()
    top = ask(threshold=None, top_tokens=2, cue_threshold=None, top_cues=1)
    np.testing.assert_array_equal(np.flatnonzero(top.sensitive), np.sort(np.argsort(-top.scores)[:2]))
    for token in top.sensitive_tokens:
        row = top.attribution.token_values[token.position]
        assert [cue.index for cue in token.cues] == [int(np.abs(row).argmax())]
    every = ask(threshold=None)
    for token in every.sensitive_tokens:
        size = np.abs(every.attribution.token_values[token.position])
        chosen = np.flatnonzero(size >= size.mean() + size.std(ddof=1))
        assert sorted(cue.index for cue in token.cues) == chosen.tolist()


@pytest.mark.parametrize(("metric", "bits"), [("pcxmi", 1.0), ("in_context_pvi", np.log(2))])
def test_other_metrics_compare_with_the_same_prompt(explainer: ap.Explainer, metric: str, bits: float) -> None:
    found = explainer.context_reliance(INPUT, OUTPUT, context=CONTEXT, method="ablation", metric=metric)
    gain = np.log(found.probabilities) - np.log(found.contextless_probabilities)
    np.testing.assert_allclose(found.scores, gain / bits, atol=1e-9)


INSEQ_SCORES = (
    "0.102506 0.848901 0.549665 0.31874 0.264651 0.277166 0.180118 0.217084 0.331479 0.89047 0.193521 0.381181"
)
"""``inseq attribute-context`` (0.7.1) on the same model, with its defaults."""


@pytest.mark.demo
@pytest.mark.slow
def test_the_tokens_are_those_of_inseq(smollm2: ap.Explainer) -> None:
    found = smollm2.context_reliance(
        "His colleagues asked him",
        " to take over the new project. He said he was not",
        context="George was sick yesterday.",
        features="tokens",
        method="ablation",
    )
    np.testing.assert_allclose(found.scores, [*map(float, INSEQ_SCORES.split())], atol=1e-4)
    tokens = [(token.position, token.text, token.contextless) for token in found.sensitive_tokens]
    assert tokens == [(1, " take", " create"), (9, " he", ",")]


class Saliency:
    """Norm of the gradient, summed over the tokens of a feature."""

    estimand, requires = "saliency", frozenset({ap.Capability.GRADIENTS})

    def run(self, game: ap.Game, *, budget: int | None, rng: torch.Generator) -> ap.Estimate:
        inside = game.inside()
        embedded = inside.embeddings()[None].detach().requires_grad_()
        values = inside.values(embedded)[0]
        found = torch.zeros(game.n_features, game.n_outputs, dtype=torch.float64)
        for k in range(game.n_outputs):
            (slope,) = torch.autograd.grad(values[k], embedded, retain_graph=True)
            for feature, size in zip(inside.feature_of, slope[0].norm(dim=-1).tolist(), strict=True):
                if feature is not None:
                    found[feature, k] += size
        return ap.Estimate(found)


def test_gradients_flow_through_the_contrast(explainer: ap.Explainer) -> None:
    """Beside autograd on the model itself; tokens that do not depend on the context have no gradient."""
    found = explainer.context_reliance(INPUT, OUTPUT, context=CONTEXT, method=Saliency(), features="tokens")
    model, ids = tiny.model(), ids_of(f"{CONTEXT} {INPUT}")
    read = torch.tensor([[*ids, *ids_of(OUTPUT)[:-1]]])
    embedded = model.get_input_embeddings()(read).detach().requires_grad_()
    probabilities = model(inputs_embeds=embedded, use_cache=False).logits[0, len(ids) - 1 :].softmax(-1)
    said = logits(INPUT).argmax(-1)
    for t, one in enumerate(ids_of(OUTPUT)):
        other = 0.0 if said[t] == one else probabilities[t, said[t]]
        (slope,) = torch.autograd.grad(probabilities[t, one] - other, embedded, retain_graph=True)
        expected = slope[0].norm(dim=-1)[: len(CONTEXT)] if found.sensitive[t] else torch.zeros(len(CONTEXT))
        np.testing.assert_allclose(found.attribution.token_values[t], expected, atol=1e-7)


def test_the_context_alone_is_cut_into_features(explainer: ap.Explainer) -> None:
    """Wherever it stands, and whatever it is cut into; the rest is always present."""
    ask = functools.partial(explainer.context_reliance, target=OUTPUT, context="ab cd.\nef 🙂!", method="ablation")
    for template in ("{context} {input}", "{input} {context}", "({input}) {context} ({input})"):
        for features, count in (
            ("words", 4),
            ("lines", 2),
            ("sentences", 2),
            ("tokens", len(ids_of("ab cd.\nef 🙂!"))),
        ):
            found = ask(INPUT, template=template, features=features)
            assert len(found.attribution.features) == count, (template, features)
            shown = "".join(segment.text for segment in found.attribution.segments)
            if features != "tokens":  # tokens that share a character are numbered
                assert shown == template.format(context="ab cd.\nef 🙂!", input=INPUT)


def test_the_prompt_without_context_may_be_named(explainer: ap.Explainer) -> None:
    ask = functools.partial(explainer.context_reliance, INPUT, OUTPUT, context=CONTEXT, method="ablation")
    named = ask(template="{context}\n{input}", contextless="Answer: {input}")
    p = logits(f"Answer: {INPUT}").log_softmax(-1)
    q = logits(f"{CONTEXT}\n{INPUT}").log_softmax(-1)
    np.testing.assert_allclose(named.scores, (p.exp() * (p - q)).sum(-1), atol=1e-9)


def test_other_prompts_hold_their_own_context(explainer: ap.Explainer) -> None:
    documents = ap.Documents("Where?", ["Dave left.", "He is in Rome."])
    found = explainer.context_reliance(documents, OUTPUT, method="ablation", threshold=None)
    assert found.attribution.feature_names == ("document 1", "document 2")
    p, q = (
        logits(f"Context: {text}\n\nQuery: Where?").log_softmax(-1) for text in ("", "Dave left.\n\nHe is in Rome.")
    )
    np.testing.assert_allclose(found.scores, (p.exp() * (p - q)).sum(-1), atol=1e-9)
    part = ap.Text(f"{CONTEXT} {INPUT}", keep=["gh", "ij"])
    same = explainer.context_reliance(part, OUTPUT, method="ablation")
    whole = explainer.context_reliance(INPUT, OUTPUT, context=CONTEXT, method="ablation")
    np.testing.assert_allclose(same.scores, whole.scores, atol=1e-9)
    np.testing.assert_allclose(same.attribution.token_values, whole.attribution.token_values, atol=1e-9)


def test_encoders_and_decoders_read_it_too() -> None:
    for joint in (True, False):
        explainer, _ = echo(joint=joint)
        found = explainer.context_reliance(INPUT, list(ids_of(OUTPUT)), context=CONTEXT, method="ablation")
        assert found.sensitive.any() and len(found.contextless_tokens) == T


def test_the_default_method_is_one_that_the_model_allows(explainer: ap.Explainer) -> None:
    found = explainer.context_reliance(INPUT, OUTPUT, context=CONTEXT)
    installed = "saliency" in explainer.plugins["methods"]
    assert found.attribution.provenance.method == ("saliency" if installed else "shapley")
    other, _ = echo()
    assert other.context_reliance(INPUT, OUTPUT, context=CONTEXT).attribution.provenance.method == "shapley"


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"metric": "entropy"}, "does not compare two prompts. Metrics that do: pcxmi, in_context_pvi, kl_divergence"),
        ({"metric": "kl_div"}, "No target function is called 'kl_div'"),
        ({"metric": "kl_divergence", "metric_options": {"topk": 1}}, "Did you mean 'top_k'"),
        ({"metric_options": {"reference": "x"}}, "name that with contextless="),
        ({"metric_options": 3}, "metric_options=3 must be a dict"),
        ({"threshold": "1"}, "threshold='1' must be a number of standard deviations"),
        ({"cue_threshold": float("nan")}, "cue_threshold=nan must be"),
        ({"top_tokens": 0}, "top_tokens=0 must be a whole number of at least 1"),
        ({"top_cues": 1.5}, "top_cues=1.5 must be a whole number"),
        ({"contrast": " x"}, "contrast= has no place"),
        ({"step_scores": ["prob"]}, "step_scores= has no place"),
        ({"context": " "}, "The context must be a text and must not be blank"),
        ({"context": None}, "The context must be a text"),
        ({"prompt": ap.Text("x")}, "The input must be a text.*holds its own context"),
        ({"prompt": " "}, "The input must be a text and must not be blank; it is ' '\\.$"),
        ({"template": "{context}"}, "must contain the placeholder {input}"),
        ({"template": "{context} {inpt}"}, "unknown placeholder {inpt}"),
        ({"template": "{context} {context} {input}"}, "must contain {context} exactly once"),
        ({"contextless": "{context} {input}"}, "unknown placeholder {context}"),
        ({"contextless": 3}, "contextless=3 must be the text"),
        ({"contextless": f"{CONTEXT} {INPUT}"}, "reads the same with its context and without"),
        ({"features": "sentences?"}, "sentences"),
        ({"target_fn": "contrast_prob_dif"}, "Did you mean 'contrast_prob_diff'"),
        ({"method": "ablatoin"}, "Did you mean 'ablation'"),
        ({"budgets": 3}, "budgets"),
    ],
)
def test_what_is_refused_before_the_model_runs(asked: dict[str, Any], message: str) -> None:
    explainer, session = echo()
    with pytest.raises(ap.InputError, match=message):
        explainer.context_reliance(**{"prompt": INPUT, "target": OUTPUT, "context": CONTEXT, **asked})
    assert session.asked == []


def test_files(explainer: ap.Explainer, tmp_path: Path) -> None:
    found = explainer.context_reliance(INPUT, OUTPUT, context=CONTEXT, method="ablation")
    loaded = ap.ContextReliance.load(found.save(tmp_path / "one.json"))
    assert loaded.to_dict() == found.to_dict() and repr(loaded) == repr(found)
    assert loaded.sensitive_tokens == found.sensitive_tokens
    table = loaded.to_dataframe()
    assert len(table) == 3 * found.sensitive.sum() and table["cue"].sum() == sum(
        len(token.cues) for token in found.sensitive_tokens
    )
    data = found.to_dict()
    for damage, message in (
        ({"schema": "x"}, "is not a saved context reliance"),
        ({"version": 7}, "schema version 7"),
        ({"sensitive": [True]}, "is damaged"),
        ({"metric": "x"}, "no step score 'x'"),
        ({"attribution": {}}, "is not a saved attribution"),
    ):
        (tmp_path / "one.json").write_text(json.dumps(data | damage))
        with pytest.raises(ap.ResultError, match=message):
            ap.ContextReliance.load(tmp_path / "one.json")
    with pytest.raises(ap.ResultError, match="Cannot read"):
        ap.ContextReliance.load(tmp_path / "none.json")


def test_views_link_tokens_with_their_cues(explainer: ap.Explainer, capsys: pytest.CaptureFixture[str]) -> None:
    found = explainer.context_reliance(INPUT, OUTPUT, context=CONTEXT, method="ablation", threshold=None, top_tokens=3)
    found.show()
    shown = " ".join(capsys.readouterr().out.split())
    page = str(found.to_html())
    assert f"3 of {T} output tokens depend on the context" in shown and "3 of" in page
    for number, token in enumerate(found.sensitive_tokens):
        assert f"{token.score:.3g}"[:4] in shown
        assert f'apn-token apn-t{number}"' in page
        for cue in token.cues:
            assert cue.feature.name in shown
            assert f"apn-c{number}" in page.split("</style>")[-1]
    assert found._repr_html_() in page and "<script" not in page
    none = explainer.context_reliance(INPUT, OUTPUT, context=CONTEXT, method="ablation", threshold=1e6)
    none.show()
    shown = " ".join(capsys.readouterr().out.split())
    score = f"{none.scores.max():.3g}"
    largest = f"None of {T} output tokens stands out by the threshold: the largest kl_divergence is {score}"
    (note,) = (one for one in none.attribution.provenance.notes if "stands out" in one)
    assert "threshold=" in note and "threshold=" in repr(none)
    for text in (shown, str(none.to_html()), repr(none), note, none.finding):
        assert largest in text and "No output token" not in text
    assert "cues of all marked tokens" not in str(none.to_html()) and "cues of all marked tokens" in page


def test_short_outputs_have_sensitive_tokens(explainer: ap.Explainer) -> None:
    """Of one or two tokens, none can be a sample's deviation above the mean; so too for features."""
    for size in (1, 2):
        output = list(ids_of(OUTPUT))[:size]
        found = explainer.context_reliance(INPUT, output, context="ab cd", method="ablation")
        assert np.flatnonzero(found.sensitive).tolist() == [int(found.scores.argmax())]
        assert found.finding == repr(found).splitlines()[0].removeprefix("ContextReliance: ")
        assert found.finding == f"1 of {size} output token{'s' * (size - 1)} depends on the context"
        (token,) = found.sensitive_tokens
        row = np.abs(found.attribution.token_values[token.position])
        assert [cue.index for cue in token.cues] == [int(row.argmax())]


@pytest.mark.parametrize("columns", [80, 120])
def test_numbers_of_the_table_are_not_broken(
    explainer: ap.Explainer, columns: int, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    found = explainer.context_reliance(
        INPUT, OUTPUT, context=CONTEXT, method="kernel_shap", budget=40, threshold=None, top_tokens=3, features="tokens"
    )
    found.show()
    lines = capsys.readouterr().out.splitlines()
    assert sum(bool(re.search(r"\d → 0\.\d", line)) for line in lines) == 3
    assert any("kl_divergence" in line and "probability" in line for line in lines)
    assert "±" not in "".join(lines) + str(found.to_html()), "no errors are shown, so none are explained"
    assert 'data-head="cues (probability)"' in str(found.to_html())


def test_what_cannot_differ_from_0_has_no_error(explainer: ap.Explainer) -> None:
    """Tokens of the output after the last explained one, whatever the method draws."""
    found = explainer.context_reliance(
        INPUT, OUTPUT, context=CONTEXT, method="kernel_shap", budget=40, attribute_generated=True, top_tokens=1
    )
    (position,) = np.flatnonzero(found.sensitive)
    result = found.attribution
    later = [i for i, one in enumerate(result.features) if one.generated is not None and one.generated >= position]
    assert later and result.std_error is not None and result.token_std_error is not None
    assert result.std_error.any() and not result.std_error[later].any() and not result.values[later].any()
    assert not result.token_std_error[~found.sensitive].any()


def test_the_default_method_reads_no_embeddings_that_the_session_refuses(
    explainer: ap.Explainer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*args: object, **options: object) -> None:
        raise ap.CapabilityError("no gradients")

    ask = functools.partial(explainer.context_reliance, INPUT, OUTPUT, context=CONTEXT)
    assert ask().attribution.provenance.method == "saliency"
    monkeypatch.setattr(explainer.session, "forward", refuse)
    assert ask().attribution.provenance.method == "shapley"
    with pytest.raises(ap.CapabilityError, match="no gradients"):
        ask(method="saliency")


def test_files_and_results_of_context_reliance_are_named(
    explainer: ap.Explainer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = explainer.context_reliance(INPUT, OUTPUT, context=CONTEXT, method="ablation")
    saved = found.save(tmp_path / "one.json")
    with pytest.raises(ap.ResultError, match=r"is a saved context reliance.*\.attribution"):
        ap.Attribution.load(saved)
    code, _, err = _run(capsys, "evaluate", "--result", str(saved))
    assert code and "is a saved context reliance" in " ".join(err.replace("│", " ").split())
    for ask in (explainer.evaluate, functools.partial(explainer.refine, budget=99)):
        with pytest.raises(ap.InputError, match=r"ContextReliance.*\.attribution"):
            ask(found)
        with pytest.raises(ap.InputError, match=r"run context_reliance\(\) again"):
            ask(ap.ContextReliance.load(saved).attribution)
    assert explainer.evaluate(found.attribution, ["deletion"])


def test_texts_are_escaped_in_pages(explainer: ap.Explainer) -> None:
    found = explainer.context_reliance("<i>x</i>", "<b>", context="<u>y</u> & z", method="ablation", threshold=None)
    page = str(found.to_html())
    assert "<u>y" not in page and "<i>x" not in page and "<b>" not in page.split("<body>")[1]


def test_the_command(tiny_model_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = functools.partial(_run, capsys)
    words = ["context", INPUT, "--model", str(tiny_model_dir), "--target", OUTPUT, "--method", "ablation"]
    saved, page = tmp_path / "one.json", tmp_path / "one.html"
    code, out, _ = run(*words, "--context", CONTEXT, "--json", "--save", str(saved), "--html", str(page))
    assert code == 0 and json.loads(out) == json.loads(saved.read_text())
    assert "apn-reliance" in page.read_text()
    (tmp_path / "context.txt").write_text(f"{CONTEXT}\n")
    code, out, _ = run(*words, "--context-file", str(tmp_path / "context.txt"), "--threshold", "none")
    assert code == 0 and f"{T} of {T} output tokens" in out
    code, out, _ = run(*words, "--document", str(tmp_path / "context.txt"), "--features", "words")
    assert code == 0 and "depend" in out
    code, out, _ = run("show", str(saved), "--plot", str(tmp_path / "two.html"))
    assert code == 0 and "depend" in out and (tmp_path / "two.html").exists()
    for wrong, message in (
        (["--context", CONTEXT, "--metric", "entropy"], "does not compare two prompts"),
        (["--context", CONTEXT, "--metric", "klk"], "No target function is called 'klk'"),
        (["--context", CONTEXT, "--threshold", "x"], "is not a number of standard deviations"),
        (["--context", CONTEXT, "--document", str(saved)], "--context is given too"),
        (["--context", CONTEXT, "--context-file", str(saved)], "--context is given too"),
        (["--context", CONTEXT, "--html", "x.png"], "should end in .html"),
        (["--document", str(saved), "--context-template", "{input}"], "there is no --context"),
        (["--context", CONTEXT, "--context-template", "{input}"], "--context-template '{input}' must contain"),
        (["--context", CONTEXT, "--metric", "entropy"], "--metric 'entropy' does not compare"),
    ):
        code, _, err = run(*words, *wrong)
        assert code and message in " ".join(err.replace("│", " ").split()), (wrong, err)
    code, _, err = run("show", str(saved), "--view", "bar")
    assert code and "has a terminal view" in " ".join(err.replace("│", " ").split())


def _run(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    capsys.readouterr()
    code = main(words)
    captured = capsys.readouterr()
    return code, captured.out, captured.err
