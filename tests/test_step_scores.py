"""Step scores: their numbers, their cost, what is refused, and that files, runs and views keep them."""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from matplotlib.text import Text

import apportion as ap
from apportion.cli import main
from apportion.testing import reference, tiny
from apportion.testing.echo import EchoBackend, EchoSession, echo_spec

PROMPT, TARGET, CONTRAST = "one two three", " six", " ten!"
ASKED = ["prob", "entropy", ("kl_divergence", {"reference": "empty"}), "pcxmi", "contrast_prob_diff"]
NAMES = ["prob", "entropy", "kl_divergence", "pcxmi", "contrast_prob_diff"]


def ids_of(text: str) -> tuple[int, ...]:
    return tuple(tiny.tokenizer()(text)["input_ids"])


def logits(prompt: str, target: str) -> torch.Tensor:
    """One prompt at a time, whole, in float64; a prompt without text is the start token."""
    return reference.logits(tiny.model(), ids_of(prompt) or (256,), ids_of(target))


def echo(**options: Any) -> tuple[ap.Explainer, EchoSession]:
    """An explainer whose session lists the rows that it reads."""
    explainer = ap.Explainer(echo_spec(), backend=EchoBackend(**options), progress=False)
    assert isinstance(explainer.session, EchoSession)
    return explainer, explainer.session


def rows(session: EchoSession, first: int = 0) -> list[tuple[str, str]]:
    """Prompt and target of every row that was read, from one batch on."""
    decode = session.tokenizer.decode
    return [(decode(row.prompt), decode(row.target)) for batch in session.asked[first:] for row in batch]


def test_they_are_those_of_the_full_prompt(explainer: ap.Explainer) -> None:
    """Against the formulas, on logits of single forward passes; shared logits give log-probabilities too."""
    for asked in (ASKED, [name for name in ASKED if name in ("prob", "pcxmi", "contrast_prob_diff")]):
        result = explainer.attribute(PROMPT, TARGET, method="ablation", contrast=CONTRAST, step_scores=asked)
        full, empty = (logits(prompt, TARGET).log_softmax(-1) for prompt in (PROMPT, ""))
        other = logits(PROMPT, CONTRAST).log_softmax(-1)
        place = torch.arange(4)
        ours, without = (table[place, torch.tensor(ids_of(TARGET))] for table in (full, empty))
        theirs = other[torch.arange(4), torch.tensor(ids_of(CONTRAST)[:4])]
        expected = {
            "prob": ours.exp(),
            "entropy": -(full.exp() * full).sum(-1),
            "kl_divergence": (empty.exp() * (empty - full)).sum(-1),
            "pcxmi": ours - without,
            "contrast_prob_diff": ours.exp() - theirs.exp(),
        }
        assert len(result.step_scores) == len(asked)
        for name, values in result.step_scores.items():
            np.testing.assert_allclose(values, expected[name].numpy(), atol=1e-9, err_msg=name)
        assert result.step_units["prob"] == "probability"
        assert result.provenance.contrast is None, "the explained function compares with nothing"
    assert result.provenance.step_scores["contrast_prob_diff"]["contrast"] == CONTRAST
    plain = explainer.attribute(PROMPT, TARGET, method="ablation")
    np.testing.assert_allclose(result.values, plain.values, atol=1e-9)


def test_one_pass_serves_all_functions_of_logits() -> None:
    explainer, session = echo()
    plain = explainer.attribute(PROMPT, TARGET, method="ablation")
    before = len(session.asked)
    result = explainer.attribute(PROMPT, TARGET, method="ablation", contrast=CONTRAST, step_scores=ASKED)
    extra = rows(session, before)
    assert sorted(extra[:3]) == sorted([(PROMPT, TARGET), ("<s>", TARGET), (PROMPT, CONTRAST)])
    assert sorted(extra[3:]) == sorted(rows(session)[: len(extra) - 3]), "the rest is the run without step scores"
    made = result.provenance
    assert made.evaluations == plain.provenance.evaluations + 2 == made.method_evaluations + 2
    read = len(PROMPT) + len(TARGET) - 1 + len(TARGET) + len(PROMPT) + len(CONTRAST) - 1
    assert made.forwarded_tokens == plain.provenance.forwarded_tokens + read


@pytest.mark.parametrize("target_fn", ["log_prob", "prob", "contrast_prob_diff"])
def test_log_probabilities_are_read_once_for_both(target_fn: str) -> None:
    """What was read for step scores is not read again for the full prompt of the run."""
    contrast = CONTRAST if target_fn == "contrast_prob_diff" else None
    asked = {"contrast_prob"} if contrast else {"prob", "crossentropy"}
    shared: dict[str, Any] = {"method": "ablation", "target_fn": target_fn, "contrast": contrast}
    explainer, session = echo()
    plain = explainer.attribute(PROMPT, TARGET, **shared)
    count = len(rows(session))
    result = explainer.attribute(PROMPT, TARGET, **shared, step_scores=sorted(asked))
    assert len(rows(session)) == 2 * count
    assert result.provenance.evaluations == plain.provenance.evaluations
    assert result.provenance.step_evaluations == 0
    assert result.provenance.forwarded_tokens <= plain.provenance.forwarded_tokens, "shorter batches need less padding"
    np.testing.assert_array_equal(result.values, plain.values)
    assert set(result.step_scores) == asked


def test_the_budget_is_the_methods(explainer: ap.Explainer) -> None:
    """Step scores come on top, and a larger budget continues the method without reading them again."""
    prompt = "a b c d e f g"
    asked: dict[str, Any] = {"method": "kernel_shap", "step_scores": ["entropy"]}
    rough = explainer.attribute(prompt, TARGET, budget=20, **asked)
    assert (rough.provenance.method_evaluations, rough.provenance.evaluations) == (20, 21)
    better = explainer.refine(rough, budget=21)
    whole = explainer.attribute(prompt, TARGET, budget=21, **asked)
    assert better.provenance.method_evaluations <= 21
    np.testing.assert_array_equal(better.step_scores["entropy"], rough.step_scores["entropy"])
    assert better.provenance.step_scores == whole.provenance.step_scores


def test_files_keep_them_and_refine_takes_them_along(explainer: ap.Explainer, tmp_path: Path) -> None:
    asked: dict[str, Any] = {"method": "kernel_shap", "budget": 20, "step_scores": {"doubt": "entropy"}}
    result = explainer.attribute("a b c d e f g", TARGET, **asked)
    loaded = ap.Attribution.load(result.save(tmp_path / "one.json"))
    assert not loaded.changed
    np.testing.assert_array_equal(loaded.step_scores["doubt"], result.step_scores["doubt"])
    assert loaded.step_units == {"doubt": "nats"}
    better = explainer.refine(loaded, budget=30)
    np.testing.assert_array_equal(better.step_scores["doubt"], result.step_scores["doubt"])
    assert better.provenance.step_scores["doubt"]["target_fn"] == "entropy"


@pytest.mark.parametrize("damage", [{"doubt": [1.0]}, {"doubt": None}, ["doubt"], {"doubt": ["x"] * 4}])
def test_damaged_ones_are_refused(explainer: ap.Explainer, tmp_path: Path, damage: object) -> None:
    result = explainer.attribute(PROMPT, TARGET, method="ablation", step_scores={"doubt": "entropy"})
    (tmp_path / "one.json").write_text(json.dumps(result.to_dict() | {"step_scores": damage}))
    with pytest.raises(ap.ResultError, match="is damaged"):
        ap.Attribution.load(tmp_path / "one.json")


def test_older_files_have_none(explainer: ap.Explainer, tmp_path: Path) -> None:
    data = explainer.attribute(PROMPT, TARGET, method="ablation").to_dict()
    del data["step_scores"], data["provenance"]["step_scores"], data["provenance"]["step_evaluations"]
    (tmp_path / "one.json").write_text(json.dumps(data))
    with pytest.warns(UserWarning, match="changed"):
        assert ap.Attribution.load(tmp_path / "one.json").step_scores == {}


def test_many_prompts_have_their_own(explainer: ap.Explainer) -> None:
    prompts = [PROMPT, "four five"]
    many = list(explainer.attribute_many(prompts, target=TARGET, method="ablation", step_scores=ASKED[:4]))
    for prompt, result in zip(prompts, many, strict=True):
        alone = explainer.attribute(prompt, TARGET, method="ablation", step_scores=ASKED[:4])
        for name in NAMES[:4]:
            np.testing.assert_allclose(result.step_scores[name], alone.step_scores[name], atol=1e-9)
        assert result.provenance.evaluations == alone.provenance.evaluations


def test_estimates_count_them(explainer: ap.Explainer) -> None:
    for asked in (["prob"], ["entropy"], ASKED[:4], ["pcxmi"]):
        cost = explainer.estimate(PROMPT, TARGET, method="ablation", step_scores=asked)
        result = explainer.attribute(PROMPT, TARGET, method="ablation", step_scores=asked)
        assert cost.evaluations == result.provenance.evaluations, asked


def test_an_encoder_and_a_decoder_give_them_too() -> None:
    for joint in (True, False):
        explainer, _ = echo(joint=joint)
        result = explainer.attribute(PROMPT, list(ids_of(TARGET)), method="ablation", step_scores=["log_prob", "logit"])
        np.testing.assert_allclose(result.step_scores["log_prob"].sum(), result.full_value, atol=1e-9)


class Huge:
    """A target function whose values are too large at one token."""

    needs, unit = ap.Needs.LOG_PROBS, "units"

    def __call__(self, scores: ap.Scores, target: ap.Target) -> torch.Tensor:
        assert scores.log_probs is not None
        found = torch.ones(len(scores.log_probs), 1 + len(target.ids), dtype=torch.float64)
        found[:, 2] = torch.inf
        return found


def test_what_is_not_finite_is_unknown(explainer: ap.Explainer, tmp_path: Path) -> None:
    result = explainer.attribute(PROMPT, TARGET, method="ablation", step_scores=[Huge()])
    expected = np.array([1.0, np.nan, 1.0, 1.0])
    np.testing.assert_array_equal(result.step_scores["Huge"], expected)
    assert any("'Huge' is not a finite number for 1 target token" in note for note in result.provenance.notes)
    loaded = ap.Attribution.load(result.save(tmp_path / "one.json"))
    np.testing.assert_array_equal(loaded.step_scores["Huge"], expected)


def test_any_function_of_logits_is_one(explainer: ap.Explainer) -> None:
    def largest(logits: torch.Tensor) -> torch.Tensor:
        return logits.amax(-1)

    result = explainer.attribute(PROMPT, TARGET, method="ablation", step_scores=[largest])
    np.testing.assert_allclose(result.step_scores["largest"], logits(PROMPT, TARGET).amax(-1), atol=1e-9)


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"step_scores": ["entrop"]}, "Did you mean 'entropy'"),
        ({"step_scores": "entrop"}, "Did you mean 'entropy'"),
        ({"step_scores": ["contrast_prob"]}, "'contrast_prob' compares with another target; give contrast="),
        ({"step_scores": ["prob"], "contrast": " x"}, "is not contrastive"),
        ({"step_scores": [("kl_divergence", {"topk": 3})]}, "no option 'topk'. Did you mean 'top_k'"),
        ({"step_scores": ("kl_divergence", {"top_k": 3})}, "write step_scores=\\["),
        ({"step_scores": [("kl_divergence", 3)]}, "must be a target function, or a pair"),
        ({"step_scores": ["prob", "prob"]}, "has 'prob' twice. Name them in a dict"),
        ({"step_scores": 3}, "step_scores=3 must be a list of target functions"),
        ({"step_scores": [3]}, "step_scores= contains 3, which is neither the name"),
        ({"step_scores": {1: "prob"}}, "must have names as keys"),
        ({"step_scores": [(Huge(), {"x": 1})]}, "requires the name of a target function"),
    ],
)
def test_what_is_refused_before_the_model_runs(asked: dict[str, Any], message: str) -> None:
    explainer, session = echo()
    with pytest.raises(ap.InputError, match=message):
        explainer.attribute(PROMPT, TARGET, method="ablation", **asked)
    assert session.asked == []


def test_a_session_without_logits_refuses_them() -> None:
    explainer, session = echo()
    session.capabilities = frozenset({ap.Capability.LOG_PROBS})
    with pytest.raises(ap.CapabilityError, match="'entropy' needs logits"):
        explainer.attribute(PROMPT, TARGET, method="ablation", step_scores=["entropy"])
    result = explainer.attribute(PROMPT, TARGET, method="ablation", step_scores=["prob"])
    assert session.asked and result.step_scores["prob"].shape == (4,)


def test_an_error_in_one_comes_before_the_run() -> None:
    """A function of the user's that fails must not cost a long run."""
    explainer, session = echo()
    with pytest.raises(ap.InputError, match="step"):
        explainer.attribute(PROMPT, TARGET, method="ablation", step_scores=[step])
    assert len(session.asked) == 1


def step(logits: torch.Tensor) -> torch.Tensor:
    raise ValueError("no")


def test_every_view_shows_them(explainer: ap.Explainer, capsys: pytest.CaptureFixture[str]) -> None:
    result = explainer.attribute(PROMPT, TARGET, method="ablation", step_scores=["prob", "entropy"])
    result.show()
    shown = capsys.readouterr().out
    html = str(result.plot("html"))
    picture = result.plot("heatmap")
    drawn = {text.get_text() for text in picture.findobj(Text) if isinstance(text, Text)}
    for name in ("prob (probability)", "entropy (nats)"):
        assert name in " ".join(shown.split()) and name in html and name in drawn
    for value in result.step_scores["entropy"]:
        text = f"{value:.2f}"
        assert text in shown and text in html and text in drawn
    narrow = result.plot("heatmap", size=(3.2, None))
    drawn = {text.get_text() for text in narrow.findobj(Text) if isinstance(text, Text)}
    assert "entropy (nats)" in drawn, "bars remain where numbers have no room"
    one = explainer.attribute(PROMPT, list(ids_of("x")), method="ablation", step_scores=["entropy"])
    drawn = {text.get_text() for text in one.plot("heatmap").findobj(Text) if isinstance(text, Text)}
    assert any("Step scores: entropy (nats)" in text for text in drawn)
    assert "entropy (nats)" in str(one.plot("html"))


def test_a_table_of_their_own(explainer: ap.Explainer) -> None:
    result = explainer.attribute(PROMPT, TARGET, method="ablation", step_scores=["prob"])
    table = result.to_dataframe("steps")
    assert list(table) == ["position", "token", "prob"] and len(table) == 4
    with pytest.raises(ap.ResultError, match="has no step scores"):
        explainer.attribute(PROMPT, TARGET, method="ablation").to_dataframe("steps")


def test_the_command_line_records_them(tiny_model_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = functools.partial(_run, capsys, "attribute", PROMPT, "--model", str(tiny_model_dir), "--target", TARGET)
    words = ["--method", "ablation", "--json", "--step-score", "prob", "--step-score", "kl_divergence"]
    code, out, _ = run(*words, "--step-score-option", "kl_divergence.reference=empty")
    data = json.loads(out)
    assert code == 0 and set(data["step_scores"]) == {"prob", "kl_divergence"}
    assert data["provenance"]["step_scores"]["kl_divergence"]["options"] == {"reference": "empty"}
    for wrong, message in (
        (["--step-score", "prop"], "Did you mean 'prob'"),
        (["--step-score", "prob", "--step-score", "prob"], "'prob' is given twice"),
        (["--step-score", "contrast_prob"], "give it as --contrast"),
        (["--step-score-option", "prob.x=1"], "is not among the step scores"),
        (["--step-score", "prob", "--step-score-option", "x=1"], "does not name an option"),
    ):
        code, _, err = run(*wrong)
        assert code and message in " ".join(err.replace("│", " ").split()), wrong


def _run(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    capsys.readouterr()
    code = main(words)
    captured = capsys.readouterr()
    return code, captured.out, captured.err
