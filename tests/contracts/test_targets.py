"""The built-in target functions keep the contract."""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from dataclasses import replace

import pytest
import torch

import apportion as ap
from apportion.hooks.manager import load_plugins
from apportion.testing import TargetContract


class BuiltIn(TargetContract):
    """A registered one, with options."""

    options: dict[str, object] = {}

    @pytest.fixture
    def target_fn(self) -> ap.TargetFunction:
        return load_plugins()["targets"].get(self.name).make(**self.options)


def log_probs(logits: torch.Tensor, ids: tuple[int, ...]) -> list[torch.Tensor]:
    return [row.log_softmax(-1)[token] for row, token in zip(logits, ids, strict=True)]


def chosen(logits: torch.Tensor, ids: tuple[int, ...]) -> list[torch.Tensor]:
    return [row[token] for row, token in zip(logits, ids, strict=True)]


def beside(tokens: list[torch.Tensor], count: int) -> list[torch.Tensor]:
    return [*tokens, *[torch.tensor(0.0).double()] * count][:count]


def columns(whole: torch.Tensor | float, tokens: list[torch.Tensor]) -> torch.Tensor:
    return torch.stack([torch.as_tensor(whole).double(), *tokens])


class TestLogProb(BuiltIn):
    name = "log_prob"

    def expected(self, logits: torch.Tensor, target: ap.Target) -> torch.Tensor:
        each = log_probs(logits, target.ids)
        return columns(sum(each), each)


class TestProb(TestLogProb):
    name = "prob"

    def expected(self, logits: torch.Tensor, target: ap.Target) -> torch.Tensor:
        return super().expected(logits, target).exp()


class TestCrossEntropy(TestLogProb):
    name = "crossentropy"

    def expected(self, logits: torch.Tensor, target: ap.Target) -> torch.Tensor:
        return -super().expected(logits, target)


class TestPerplexity(BuiltIn):
    name = "perplexity"

    def expected(self, logits: torch.Tensor, target: ap.Target) -> torch.Tensor:
        ids = torch.tensor(target.ids)
        each = torch.nn.functional.cross_entropy(logits, ids, reduction="none")
        return columns(torch.nn.functional.cross_entropy(logits, ids).exp(), list(each.exp()))


class TestLogit(BuiltIn):
    name = "logit"

    def expected(self, logits: torch.Tensor, target: ap.Target) -> torch.Tensor:
        each = chosen(logits, target.ids)
        return columns(sum(each), each)


class TestEntropy(BuiltIn):
    name = "entropy"

    def expected(self, logits: torch.Tensor, target: ap.Target) -> torch.Tensor:
        each = [torch.distributions.Categorical(logits=row).entropy() for row in logits]
        return columns(sum(each), each)


class TestTopPSize(BuiltIn):
    name = "top_p_size"
    options = {"top_p": 0.7}

    def expected(self, logits: torch.Tensor, target: ap.Target) -> torch.Tensor:
        each = []
        for row in logits:
            held, count = 0.0, 0
            for p in sorted(row.softmax(-1).tolist(), reverse=True):
                if held >= 0.7:
                    break
                held, count = held + p, count + 1
            each.append(torch.tensor(float(count)).double())
        return columns(sum(each) / len(each), each)


class TestContrastLogProbDiff(BuiltIn):
    name = "contrast_log_prob_diff"

    def expected(self, logits: torch.Tensor, target: ap.Target, contrast: torch.Tensor) -> torch.Tensor:
        ours, theirs = log_probs(logits, target.ids), log_probs(contrast, target.contrast.ids)
        pairs = zip(ours, beside(theirs, len(ours)), strict=True)
        return columns(sum(ours) - sum(theirs), [a - b for a, b in pairs])


class TestContrastProb(BuiltIn):
    name = "contrast_prob"

    def expected(self, logits: torch.Tensor, target: ap.Target, contrast: torch.Tensor) -> torch.Tensor:
        theirs = [p.exp() for p in log_probs(contrast, target.contrast.ids)]
        return columns(math.prod(theirs), beside(theirs, len(target.ids)))


class TestContrastProbDiff(BuiltIn):
    name = "contrast_prob_diff"

    def expected(self, logits: torch.Tensor, target: ap.Target, contrast: torch.Tensor) -> torch.Tensor:
        ours, theirs = (
            [p.exp() for p in log_probs(part, ids)]
            for part, ids in ((logits, target.ids), (contrast, target.contrast.ids))
        )
        pairs = zip(ours, beside(theirs, len(ours)), strict=True)
        return columns(math.prod(ours) - math.prod(theirs), [a - b for a, b in pairs])


class TestContrastLogits(BuiltIn):
    name = "contrast_logits"

    def expected(self, logits: torch.Tensor, target: ap.Target, contrast: torch.Tensor) -> torch.Tensor:
        theirs = chosen(contrast, target.contrast.ids)
        return columns(sum(theirs), beside(theirs, len(target.ids)))


class TestContrastLogitsDiff(BuiltIn):
    name = "contrast_logits_diff"

    def expected(self, logits: torch.Tensor, target: ap.Target, contrast: torch.Tensor) -> torch.Tensor:
        ours, theirs = chosen(logits, target.ids), chosen(contrast, target.contrast.ids)
        pairs = zip(ours, beside(theirs, len(ours)), strict=True)
        return columns(sum(ours) - sum(theirs), [a - b for a, b in pairs])


class TestPCXMI(BuiltIn):
    name = "pcxmi"

    def expected(self, logits: torch.Tensor, target: ap.Target, reference: torch.Tensor) -> torch.Tensor:
        pairs = zip(log_probs(logits, target.ids), log_probs(reference, target.ids), strict=True)
        each = [a - b for a, b in pairs]
        return columns(sum(each), each)


class TestInContextPVI(TestPCXMI):
    name = "in_context_pvi"

    def expected(self, logits: torch.Tensor, target: ap.Target, reference: torch.Tensor) -> torch.Tensor:
        return super().expected(logits, target, reference=reference) / math.log(2)


class TestKLDivergence(BuiltIn):
    name = "kl_divergence"

    def expected(self, logits: torch.Tensor, target: ap.Target, reference: torch.Tensor) -> torch.Tensor:
        each = []
        for q, p in zip(logits, reference, strict=True):
            keep = self.kept(p)
            p, q = (torch.distributions.Categorical(logits=row[keep]) for row in (p, q))
            each.append(torch.distributions.kl_divergence(p, q))
        return columns(sum(each), each)

    def kept(self, logits: torch.Tensor) -> torch.Tensor:
        return logits.argsort(descending=True)


class TestKLDivergenceOfTheLikeliest(TestKLDivergence):
    options = {"top_k": 3, "reference": "empty"}

    def kept(self, logits: torch.Tensor) -> torch.Tensor:
        return super().kept(logits)[:3]


class TestKLDivergenceOfTheNucleus(TestKLDivergence):
    options = {"top_p": 0.6, "reference": "some other prompt"}

    def kept(self, logits: torch.Tensor) -> torch.Tensor:
        order = super().kept(logits)
        before = torch.cat([torch.zeros(1), logits.softmax(-1)[order].cumsum(0)[:-1]])
        return order[before < 0.6]


# --- of texts -------------------------------------------------------------------------------------------------------


class TestExactMatch(BuiltIn):
    name = "exact_match"

    def expected_of_text(self, text: str, target: ap.Target) -> float:
        return float(text.split() == target.text.split())


class TestRegex(BuiltIn):
    name = "regex"
    options = {"pattern": "[0-9]+ [0-9]+"}

    def expected_of_text(self, text: str, target: ap.Target) -> float:
        return float(re.search("[0-9]+ [0-9]+", text) is not None)


class TestChrF(BuiltIn):
    name = "chrf"

    def expected_of_text(self, text: str, target: ap.Target) -> float:
        """F2 of precision and recall, each the mean over the orders up to 6 that both texts have."""
        ours, theirs = ("".join(one.split()) for one in (text, target.text))
        shares: list[tuple[float, float]] = []
        for n in range(1, 7):
            a, b = (Counter(one[i : i + n] for i in range(len(one) - n + 1)) for one in (ours, theirs))
            if a and b:
                common = sum((a & b).values())
                shares.append((common / sum(a.values()), common / sum(b.values())))
        precision, recall = (
            sum(part) / len(shares) if shares else 0.0 for part in zip(*shares or [(0.0, 0.0)], strict=True)
        )
        return 100 * 5 * precision * recall / (4 * precision + recall) if precision + recall else 0.0


class TestBLEU(BuiltIn):
    name = "bleu"

    def expected_of_text(self, text: str, target: ap.Target) -> float | None:
        return 100.0 if text == target.text else 0.0 if not set(text.split()) & set(target.text.split()) else None


class TestJSONMatch(BuiltIn):
    name = "json_match"
    options = {"partial": True}

    def target(self, tokens: int) -> ap.Target:
        return replace(super().target(tokens), text=json.dumps({"a": 1, "b": {"c": list(range(tokens))}}))

    def expected_of_text(self, text: str, target: ap.Target) -> float:
        if target.text in text and text.index("{") == text.index(target.text):
            return 1.0
        leaves = target.text.count(",") + 1
        return 1 / leaves if "{" in text else 0.0


class TestEmbeddingSimilarity(BuiltIn):
    name = "embedding_similarity"
    options = {"encoder": lambda texts: [[text.count("one"), len(text) + 1.0] for text in texts]}

    def expected_of_text(self, text: str, target: ap.Target) -> float:
        a, b = ((one.count("one"), len(one) + 1.0) for one in (text, target.text))
        return (a[0] * b[0] + a[1] * b[1]) / (math.hypot(*a) * math.hypot(*b))


class TestJudge(BuiltIn):
    name = "judge"
    options = {"function": lambda texts, target: [len(text) - len(target) for text in texts]}

    def expected_of_text(self, text: str, target: ap.Target) -> float:
        return len(text) - len(target.text)
