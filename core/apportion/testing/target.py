"""The contract of target functions."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from jaxtyping import Float
from torch import Tensor

from apportion.hooks.object_check import object_faults
from apportion.protocols.targets import EMPTY, FULL, Scores, Target, TargetFunction
from apportion.testing import reference, tiny
from apportion.testing.contract import Contract
from apportion.testing.explainers import tiny_explainer
from apportion.testing.randomness import only_its_own_generator
from apportion.testing.scores import (
    Logits,
    is_contrastive,
    random_scores,
    random_target,
    reads_texts,
    reference_of,
    scores_of,
)

__all__ = ["TargetContract"]


class TargetContract(Contract):
    """Contract of target functions. Subclass it, and provide a fixture ``target_fn``.

    Override ``expected``, or ``expected_of_text`` for a function of texts, if you can compute the correct values.
    """

    @pytest.fixture
    def target_fn(self) -> TargetFunction:
        """Your target function."""
        raise NotImplementedError("Define a fixture `target_fn` that returns your target function.")

    def expected(
        self, logits: Float[Tensor, "T V"], target: Target, **others: Float[Tensor, "C V"]
    ) -> Float[Tensor, " K"] | None:
        """Compute the values of one input, the whole target first, as simply as possible; ``None`` if unknown.

        ``others`` has the logits of ``contrast`` for a function that is ``contrastive``, and those of ``reference`` for
        one that has a reference.
        """
        return None

    def expected_of_text(self, text: str, target: Target) -> float | None:
        """Compute the value of one text, for a function that needs ``TEXT``; ``None`` if unknown."""
        return None

    def target(self, tokens: int) -> Target:
        """A target that the function can compare with."""
        return random_target(tokens)

    def scores(self, target_fn: TargetFunction, rows: int, target: Target) -> tuple[Scores, Logits]:
        """Random scores of some inputs, as a session returns them, and the logits that they are computed from."""
        return random_scores(target_fn, rows, target)

    def test_it_says_what_it_is(self, target_fn: TargetFunction) -> None:
        """``needs``, signature and docstring."""
        faults = object_faults("targets", target_fn)
        assert not faults, f"{type(target_fn).__name__} {' '.join(faults)}"

    @pytest.mark.parametrize("rows", [1, 2, 7])
    @pytest.mark.parametrize("tokens", [1, 2, 5])
    def test_shapes(self, target_fn: TargetFunction, rows: int, tokens: int) -> None:
        """Values have a row per input, a column for the whole target and one per token, and are fp32 or better."""
        target = self.target(tokens)
        scores, _ = self.scores(target_fn, rows, target)
        with only_its_own_generator():
            values = target_fn(scores, target)
        wanted = (rows, 1 if reads_texts(target_fn) else 1 + tokens)
        assert tuple(values.shape) == wanted, (
            f"{rows} inputs and {tokens} target tokens gave {list(values.shape)} instead of {list(wanted)}."
        )
        assert values.dtype in (torch.float32, torch.float64), f"Values must be fp32 or better, not {values.dtype}."
        assert bool(torch.isfinite(values).all()), f"Values of ordinary scores must be finite: {values.tolist()}."

    def test_rows_do_not_see_each_other(self, target_fn: TargetFunction) -> None:
        """An input has the same values alone and in any batch, because the size of batches depends on memory."""
        target = self.target(4)
        scores, _ = self.scores(target_fn, 6, target)
        whole = target_fn(scores, target)
        for row in range(6):
            alone = target_fn(_rows(scores, row, row + 1), target)
            assert torch.allclose(alone[0], whole[row], atol=1e-9), (
                f"Row {row} gives {alone[0].tolist()} alone and {whole[row].tolist()} in a batch of 6."
            )

    def test_it_changes_nothing_and_repeats(self, target_fn: TargetFunction) -> None:
        """The scores are not modified, and the same scores give the same values."""
        target = self.target(3)
        scores, _ = self.scores(target_fn, 4, target)
        given = scores.logits if scores.logits is not None else scores.log_probs
        before = None if given is None else given.clone()
        first = target_fn(scores, target).clone()
        if given is not None and before is not None:
            assert torch.equal(given, before), "It modified the scores in place, but others read them too."
        assert torch.equal(first, target_fn(scores, target)), "The same scores gave different values the second time."

    def test_single_precision_is_enough(self, target_fn: TargetFunction) -> None:
        """Scores in fp32, as most sessions return them, give the same values as fp64 to within 1e-3."""
        if reads_texts(target_fn):
            pytest.skip("It reads no scores")
        target = self.target(4)
        scores, _ = self.scores(target_fn, 5, target)
        single = _changed(scores, Tensor.float)
        assert single is not None
        exact, rounded = target_fn(scores, target).double(), target_fn(single, target).double()
        assert torch.allclose(exact, rounded, atol=1e-3, rtol=1e-3), (
            f"fp32 scores give {rounded[0].tolist()}, but fp64 scores give {exact[0].tolist()}."
        )

    def test_the_values_are_right(self, target_fn: TargetFunction) -> None:
        """Values equal those of ``expected``, for each input separately."""
        for tokens in (1, 4):
            target = self.target(tokens)
            scores, logits = self.scores(target_fn, 3, target)
            values = target_fn(scores, target)
            for row, text in enumerate(scores.texts or ()):
                right = self.expected_of_text(text, target)
                if right is None:
                    pytest.skip("`expected_of_text` is not defined")
                assert abs(float(values[row, 0]) - right) < 1e-8, f"{text!r} gives {values[row, 0]}; expected {right}."
            for row in range(0 if scores.texts else 3):
                others = {name: part[min(row, len(part) - 1)] for name, part in logits.items()}
                wanted = self.expected(others.pop("logits"), target, **others)
                if wanted is None:
                    pytest.skip("`expected` is not defined")
                assert torch.allclose(values[row].double(), wanted.double(), atol=1e-8), (
                    f"Row {row} gives {values[row].tolist()}; expected {wanted.tolist()}."
                )

    def test_it_runs_on_a_model(self, target_fn: TargetFunction) -> None:
        """The score of a full prompt on a tiny model equals that of a plain forward pass, or of a text it writes."""
        if reads_texts(target_fn):
            self._check_on_texts(target_fn)
            return
        tokenizer = tiny.tokenizer()
        target = Target(tuple(tokenizer(" four")["input_ids"]), tuple(" four"), " four")
        if is_contrastive(target_fn):
            other = tuple(tokenizer(" six")["input_ids"])
            target = replace(target, contrast=Target(other, tuple(" six"), " six"))
        with tiny_explainer() as explainer:
            result = explainer.attribute(
                "one two three",
                " four",
                method="shapley",
                target_fn=target_fn,
                contrast=None if target.contrast is None else " six",
            )
        prompt, named = tokenizer("one two three")["input_ids"], reference_of(target_fn)
        scores = _plain_scores(prompt, target_fn, target)
        if target.contrast is not None:
            scores = replace(scores, contrast=_plain_scores(prompt, target_fn, target.contrast))
        if named is not None:
            to = {FULL: prompt, EMPTY: [tokenizer.bos_token_id]}.get(named)
            to = to or tokenizer(named)["input_ids"] or [tokenizer.bos_token_id]
            scores = replace(scores, reference=_plain_scores(to, target_fn, target))
        assert result.full_value is not None
        assert abs(result.full_value - float(target_fn(scores, target)[0, 0])) < 1e-7

    def _check_on_texts(self, target_fn: TargetFunction) -> None:
        """The score of a full prompt is that of the text which the model writes after it."""
        target = self.target(2)
        with tiny_explainer() as explainer:
            result = explainer.attribute("one two three", target.text, method="shapley", target_fn=target_fn)
            whole = result.extras["texts"][0]
        values = target_fn(Scores(texts=tuple(whole["texts"])), target)
        assert whole["present"] == [0, 1, 2]
        assert result.full_value == float(values[0, 0])


def _plain_scores(prompt: list[int], target_fn: TargetFunction, target: Target) -> Scores:
    """Scores of a plain forward pass of the tiny model."""
    return scores_of(reference.logits(tiny.model(), prompt, target.ids)[None], target_fn, target)


def _changed(scores: Scores | None, change: Callable[[Tensor], Tensor], *, everywhere: bool = True) -> Scores | None:
    """Apply a function to every tensor of the scores, and to those of the reference only if ``everywhere``."""
    if scores is None:
        return None
    return Scores(
        log_probs=None if scores.log_probs is None else change(scores.log_probs),
        logits=None if scores.logits is None else change(scores.logits),
        contrast=_changed(scores.contrast, change),
        reference=_changed(scores.reference, change) if everywhere else scores.reference,
        texts=scores.texts,
    )


def _rows(scores: Scores, first: int, last: int) -> Scores:
    found = _changed(scores, lambda part: part[first:last], everywhere=False)
    assert found is not None
    return found if found.texts is None else replace(found, texts=found.texts[first:last])
