"""Target functions in whole runs: contrasts, references, functions of logits, and what is refused."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from matplotlib.text import Text

import apportion as ap
from apportion.hooks.manager import load_plugins
from apportion.testing import reference, tiny
from apportion.testing.echo import EchoBackend, EchoSession

PROMPT = "one two three"
NAMES = [entry.name for entry in load_plugins()["targets"] if entry.load().needs is not ap.Needs.TEXT]
CONTRASTIVE = [name for name in NAMES if name.startswith("contrast_")]


def log_probs(prompt: str, target: str) -> np.ndarray:
    """One prompt at a time, whole, uncached."""
    tokenizer = tiny.tokenizer()
    ids = tokenizer(target)["input_ids"]
    return reference.log_probs(tiny.model(), tokenizer(prompt)["input_ids"], ids).numpy()


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("share", [True, False])
def test_all_of_them_run_whole_and_per_token(name: str, share: bool) -> None:
    """With prefixes shared or not, and with the cache in between, the numbers are the same."""
    contrast = " four five" if name in CONTRASTIVE else None
    with ap.Explainer((tiny.model(), tiny.tokenizer()), share_prefixes=share) as explainer:
        result = explainer.attribute(PROMPT, " six", method="shapley", target_fn=name, contrast=contrast)
    with ap.Explainer((tiny.model(), tiny.tokenizer())) as explainer:
        plain = explainer.attribute(PROMPT, " six", method="shapley", target_fn=name, contrast=contrast)
    assert result.token_values.shape == (4, 3)
    assert np.isfinite(result.token_values).all()
    np.testing.assert_allclose(result.values, plain.values, atol=1e-9)
    np.testing.assert_allclose(result.token_values, plain.token_values, atol=1e-9)
    assert result.unit in {"nats", "bits", "probability", "logits", "tokens", "perplexity"}
    assert abs(result.efficiency_gap or 0.0) < 1e-9


def test_a_contrast_of_another_length_stands_beside_the_target_from_the_left(explainer: ap.Explainer) -> None:
    """Tokens past the contrast's end are compared with nothing; past the target's end they count for the whole."""
    for target, contrast in ((" six", " a"), (" a", " six")):
        result = explainer.attribute(
            PROMPT, target, method="shapley", target_fn="contrast_log_prob_diff", contrast=contrast
        )
        ours, theirs = log_probs(PROMPT, target), log_probs(PROMPT, contrast)
        assert result.full_value == pytest.approx(ours.sum() - theirs.sum(), abs=1e-9)
        rows = explainer.attribute(PROMPT, target, method="shapley").token_values
        other = explainer.attribute(PROMPT, contrast, method="shapley").token_values
        shared = min(len(rows), len(other))
        expected = rows.copy()
        expected[:shared] -= other[:shared]
        np.testing.assert_allclose(result.token_values, expected, atol=1e-9)


def test_a_contrast_counts_its_tokens_and_is_cached(tmp_path: Path) -> None:
    asked = {"target_fn": "contrast_prob_diff", "contrast": " no", "method": "shapley"}
    with ap.Explainer((tiny.model(), tiny.tokenizer()), cache=tmp_path / "c.sqlite3") as explainer:
        plain = explainer.attribute(PROMPT, " ye", method="shapley", target_fn="prob")
        first = explainer.attribute(PROMPT, " ye", **asked)
        again = explainer.attribute(PROMPT, " ye", **asked)
    with ap.Explainer((tiny.model(), tiny.tokenizer())) as explainer:
        fresh = explainer.attribute(PROMPT, " ye", **asked)
    # The target is known from the first run, its contrast is not; as long as the target, it takes as many tokens.
    assert (first.provenance.evaluations, first.provenance.cached) == (8, 0)
    assert first.provenance.forwarded_tokens == plain.provenance.forwarded_tokens
    assert fresh.provenance.forwarded_tokens < 1.5 * plain.provenance.forwarded_tokens, "prompts are read once for both"
    assert (again.provenance.evaluations, again.provenance.cached, again.provenance.forwarded_tokens) == (0, 8, 0)
    np.testing.assert_array_equal(first.values, again.values)
    assert (first.provenance.contrast, first.provenance.unit) == (" no", "probability")
    assert ap.Attribution.load(first.save(tmp_path / "r.json")).provenance == first.provenance


def test_references(explainer: ap.Explainer) -> None:
    """A reference shifts every value alike; its own divergence is 0."""
    plain = explainer.attribute(PROMPT, " six", method="shapley")
    options: dict[str, Any] = {"target_fn": "pcxmi", "method": "shapley"}
    for named, prompt in (("empty", "<s>"), ("full", PROMPT), ("four five", "four five")):
        result = explainer.attribute(PROMPT, " six", target_options={"reference": named}, **options)
        np.testing.assert_allclose(result.values, plain.values, atol=1e-9)
        if named != "empty":
            expected = log_probs(PROMPT, " six").sum() - log_probs(prompt, " six").sum()
            assert result.full_value == pytest.approx(expected, abs=1e-9)
        else:
            assert result.base_value == pytest.approx(0, abs=1e-12)
    divergence = explainer.attribute(PROMPT, " six", method="shapley", target_fn="kl_divergence")
    assert divergence.full_value == pytest.approx(0, abs=1e-12)
    assert divergence.base_value > 0
    alternatives = ap.Template("{a} {b}", {"a": "x", "b": "y"}, {"a": ["p", "q"]})
    with pytest.raises(ap.InputError, match="a single prompt is needed"):
        explainer.attribute(alternatives, " six", **options)


def test_any_function_of_logits(explainer: ap.Explainer) -> None:
    """Values for each token, whose sum stands for the whole; or both."""

    def entropy(logits: torch.Tensor) -> torch.Tensor:
        return torch.distributions.Categorical(logits=logits).entropy()

    ours = explainer.attribute(PROMPT, " six", method="shapley", target_fn=entropy)
    built_in = explainer.attribute(PROMPT, " six", method="shapley", target_fn="entropy")
    np.testing.assert_allclose(ours.values, built_in.values, atol=1e-9)
    np.testing.assert_allclose(ours.token_values, built_in.token_values, atol=1e-9)
    assert (ours.provenance.target_fn, ours.unit) == ("entropy", "entropy")

    def first_and_each(logits: torch.Tensor) -> torch.Tensor:
        return torch.cat([logits[:, :1, 0], logits[:, :, 0]], dim=1)

    both = explainer.attribute(PROMPT, " six", method="shapley", target_fn=first_and_each)
    np.testing.assert_allclose(both.values, both.token_values[0], atol=1e-12)
    with pytest.raises(ap.InputError, match=r"'<lambda>' returned torch.float64 \[8\] for logits"):
        explainer.attribute(PROMPT, " six", method="shapley", target_fn=lambda logits: logits.sum((1, 2)))


class Failing:
    needs = ap.Needs.LOG_PROBS

    def __call__(self, scores: ap.Scores, target: ap.Target) -> torch.Tensor:
        raise KeyError("top")


def test_an_object_that_fails_is_named(explainer: ap.Explainer) -> None:
    with pytest.raises(ap.PluginError, match=r"Failing failed on log_probs of shape \[\d+, 4\]: KeyError: 'top'"):
        explainer.attribute(PROMPT, " six", target_fn=Failing())


class Padded(EchoBackend):
    """A head with rows for tokens that no text has, whose logits are -inf."""

    def load(self, *args: Any, **options: Any) -> EchoSession:
        session = super().load(*args, **options)
        logits = session.logits

        def padded(batch: ap.ScoringBatch, rows: int) -> Iterator[torch.Tensor]:
            for part in logits(batch, rows):
                yield torch.cat([part, torch.full((*part.shape[:2], 3), -torch.inf)], dim=-1)

        session.logits = padded  # type: ignore[method-assign]
        return session


@pytest.mark.parametrize(
    ("name", "options"),
    [*((name, {}) for name in NAMES), ("kl_divergence", {"top_k": 262}), ("top_p_size", {"top_p": 1})],
)
def test_logits_of_tokens_that_never_come_may_be_infinite(name: str, options: dict[str, Any]) -> None:
    found = []
    for backend in (EchoBackend(), Padded()):
        with ap.Explainer("echo://", backend=backend, progress=False) as explainer:
            result = explainer.attribute(
                PROMPT,
                " six",
                method="shapley",
                target_fn=name,
                target_options=options,
                contrast=" no" if name in CONTRASTIVE else None,
            )
            found.append(result.token_values)
    np.testing.assert_allclose(found[1], found[0], atol=1e-9)


def test_values_must_be_finite_in_the_end() -> None:
    with ap.Explainer("echo://", backend=Padded(), progress=False) as explainer:
        seen = explainer.attribute(PROMPT, " six", method="ablation", target_fn=lambda logits: logits[..., 7])
        assert np.isfinite(seen.values).all()
        with pytest.raises(ap.ScoreError, match="not finite: -inf"):
            explainer.attribute(PROMPT, " six", method="ablation", target_fn=lambda logits: logits[..., -1])


@pytest.mark.parametrize("name", ["entropy", "kl_divergence"])
def test_gradients_stay_finite_where_probabilities_are_zero(name: str) -> None:
    function = load_plugins()["targets"].get(name).make()
    logits = torch.tensor([[[0.5, -torch.inf, 2.0]]], dtype=torch.float64, requires_grad=True)
    other = ap.Scores(logits=torch.tensor([[[1.0, -torch.inf, 0.0]]], dtype=torch.float64))
    values = function(ap.Scores(logits=logits, reference=other), ap.Target((0,), ("a",), "a"))
    (slopes,) = torch.autograd.grad(values.sum(), logits)
    assert torch.isfinite(values).all() and torch.isfinite(slopes).all()


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"target_fn": "contrast_prob"}, "'contrast_prob' compares with another target; give contrast="),
        ({"contrast": " x"}, "'log_prob' is not contrastive. Contrastive ones: .*contrast_logits_diff"),
        ({"target_fn": "contrast_prob", "contrast": ""}, "The contrast is an empty string. Give a text."),
        (
            {"target_fn": "contrast_prob", "contrast": []},
            "The contrast is an empty list of token ids. Give",
        ),
        ({"target_fn": "contrast_prob", "contrast": [10**6]}, "The contrast id 1000000 is outside the vocabulary"),
        ({"target_fn": "contrast_prob", "contrast": 7}, "The contrast must be a string, token ids"),
        ({"target_fn": "contrast_prob", "contrast": " six"}, "is equal to the target"),
        ({"target_fn": "kl_divergence", "target_options": {"topk": 3}}, "no option 'topk'. Did you mean 'top_k'"),
        ({"target_fn": "kl_divergence", "target_options": {"top_k": 0}}, "top_k=0 must be a whole number"),
        ({"target_fn": "top_p_size", "target_options": {"top_p": 1.5}}, "top_p=1.5 must be a probability"),
        ({"target_fn": "pcxmi", "target_options": {"reference": 3}}, "reference=3 must be 'full', 'empty' or"),
        ({"target_options": {"x": 1}}, "The target function 'log_prob' has no option 'x'"),
        ({"target_options": "x"}, "target_options='x' must be a dict"),
        ({"target_fn": len, "target_options": {"x": 1}}, "requires the name of a target function"),
        ({"target_options": {5: 5}}, "must be a dict"),
        ({"target_fn": "kl_divergence", "target_options": {"reference": None}}, "reference=None must be 'full'"),
        ({"target_fn": lambda logits: logits / [0]}, "given as target_fn failed on logits of shape"),
        ({"target_fn": lambda logits: logits[..., 0] * 1j}, "returned torch.complex"),
        ({"method": "reagent", "target_fn": "entropy"}, "reagent explains drops in the target's probability"),
        ({"method": "kernel_shap", "sampler": 5}, "sampler=5 must be a name"),
        ({"method": "interactions", "index": None}, "interaction index is called 'None'"),
        ({"target_fn": 3}, "target_fn=3 must be a name, a TargetFunction"),
        ({"target_fn": "entrop"}, "Did you mean 'entropy'"),
    ],
)
def test_what_is_refused_before_the_model_runs(explainer: ap.Explainer, asked: dict[str, Any], message: str) -> None:
    with pytest.raises(ap.InputError, match=message):
        explainer.attribute(PROMPT, " six", **asked)


@pytest.mark.demo
def test_why_this_city_and_not_that_one(smollm2: ap.Explainer) -> None:
    """For single tokens the difference of logits is that of log-probabilities: the softmax cancels."""
    prompt = "The capital of France is"
    options: dict[str, Any] = {"contrast": " London", "method": "shapley"}
    logits = smollm2.attribute(prompt, " Paris", target_fn="contrast_logits_diff", **options)
    nats = smollm2.attribute(prompt, " Paris", target_fn="contrast_log_prob_diff", **options)
    np.testing.assert_allclose(logits.values, nats.values, atol=1e-4)
    assert logits.feature_names[int(logits.values.argmax())] == "France"


def test_views_say_what_the_target_was_compared_with(explainer: ap.Explainer, capsys: Any) -> None:
    result = explainer.attribute(PROMPT, " six", method="shapley", target_fn="contrast_log_prob_diff", contrast=" four")
    result.show()
    assert "against “ four”" in capsys.readouterr().out
    assert "against" in result.plot("html")
    texts = [text.get_text() for text in result.plot("bar").findobj() if hasattr(text, "get_text")]
    assert any("against" in text and "four" in text for text in texts)


@pytest.mark.parametrize(
    ("name", "what", "rise"),
    [
        ("entropy", "entropy of the next-token distribution", "makes the model less certain"),
        ("crossentropy", "cross-entropy of the target", "makes the target less likely"),
        ("perplexity", "perplexity of the target", "makes the target less likely"),
        ("kl_divergence", "divergence from the predictions after the full prompt", ""),
        ("pcxmi", "gain in log-probability of the target over the prompt without features", ""),
    ],
)
def test_every_view_says_what_is_scored(
    name: str, what: str, rise: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    with ap.Explainer((tiny.model(), tiny.tokenizer())) as explainer:
        result = explainer.attribute(PROMPT, " six", method="shapley", target_fn=name)
        found = explainer.evaluate(result, ["deletion"])
    loaded = ap.Attribution.load(result.save(tmp_path / "result.json"))
    for one in (result, loaded):
        one.show()
        found.show()
        ap.compare([one, one]).show()
        for text in capsys.readouterr().out.split("estimand"):
            assert "target's score" not in text
        for text in (repr(one), repr(found), one.plot("html"), found.to_html(), ap.compare([one, one]).to_html()):
            assert what in text and "target's score" not in text
        assert rise in repr(one) and rise in one.plot("html")
        drawn = " ".join(text.get_text() for text in one.plot("bar").findobj(Text))
        assert f"raises the {what}" in drawn and rise in drawn and "target's score" not in drawn
        assert name in " ".join(text.get_text() for text in one.plot("bar", title=None).findobj(Text))
    curves = " ".join(text.get_text() for text in found.plot().findobj(Text))
    assert f"Score: {what}" in curves and "score of the target" not in curves


def test_a_function_without_a_label_is_called_by_its_name(capsys: pytest.CaptureFixture[str]) -> None:
    def margin(logits: torch.Tensor) -> torch.Tensor:
        return logits.amax(-1) - logits.mean(-1)

    with ap.Explainer((tiny.model(), tiny.tokenizer())) as explainer:
        result = explainer.attribute(PROMPT, " six", method="shapley", target_fn=margin)
        plain = explainer.attribute(PROMPT, " six", method="shapley")
    result.show()
    assert "the value of margin" in capsys.readouterr().out and "value of margin" in repr(result)
    plain.show()
    assert "lowers the target's score" in capsys.readouterr().out and "explained" not in repr(plain)
