"""The real model: figures that were known before the project began, and every row against a plain forward."""

from __future__ import annotations

import pytest
import torch
import transformers

import apportion as ap
from apportion.benchmarking.measuring import need
from apportion.benchmarking.watcher import Watcher
from apportion.benchmarking.works import WORKS, work
from apportion.testing import reference

pytestmark = [pytest.mark.demo, pytest.mark.slow]

PROMPT = "Dave lives in Palm Coast, FL and is a lawyer. His personal interests include"
TARGET = " playing golf, hiking, and cooking."
TEMPLATE = ap.Template(
    "{name} lives in {city}, {state} and is a {job}. {pronoun} personal interests include",
    {"name": "Dave", "city": "Palm Coast", "state": "FL", "job": "lawyer", "pronoun": "His"},
    {"name": "Sarah", "city": "Seattle", "state": "WA", "job": "doctor", "pronoun": "Her"},
)


def plain(explainer: ap.Explainer, prompt: list[int]) -> torch.Tensor:
    target = explainer.session.tokenizer(TARGET, add_special_tokens=False)["input_ids"]
    return reference.sequence_and_tokens(explainer.session.model, prompt, target)


def test_ablation_of_the_17_tokens(smollm2: ap.Explainer) -> None:
    result = smollm2.attribute(ap.Text(PROMPT, by="tokens", baseline=0), TARGET, method="ablation")
    assert result.provenance.evaluations == 18
    # Reference figures, with which Captum's two correct paths agree.
    assert result.values[:3] == pytest.approx([1.879, 0.726, 1.644], abs=5e-4)
    ids = smollm2.session.tokenizer(PROMPT)["input_ids"]
    full = plain(smollm2, ids)
    for i in range(17):
        expected = full - plain(smollm2, [*ids[:i], 0, *ids[i + 1 :]])
        ours = torch.tensor([result.values[i], *result.token_values[:, i]])
        assert torch.allclose(ours, expected, atol=1e-4, rtol=0)


def test_exact_shapley_of_the_5_slots(smollm2: ap.Explainer) -> None:
    result = smollm2.attribute(TEMPLATE, TARGET, method="shapley")
    assert result.provenance.evaluations == 32
    table = {}
    for number in range(32):
        values = {
            slot: (TEMPLATE.values if number >> i & 1 else TEMPLATE.baselines)[slot]
            for i, slot in enumerate(TEMPLATE.slots)
        }
        table[number] = plain(smollm2, smollm2.session.tokenizer(TEMPLATE.template.format(**values))["input_ids"])
    # Over all 120 orders, as the definition says.
    from itertools import permutations

    total = torch.zeros(5, 9, dtype=torch.float64)
    for order in permutations(range(5)):
        present = 0
        for i in order:
            total[i] += table[present | 1 << i] - table[present]
            present |= 1 << i
    expected = total / 120
    ours = torch.cat([torch.tensor(result.values)[:, None], torch.tensor(result.token_values).T], 1)
    assert torch.allclose(ours, expected, atol=1e-4, rtol=0)


def test_the_model_continues_the_prompt(smollm2: ap.Explainer) -> None:
    result = smollm2.attribute(TEMPLATE, method="ablation", generate={"max_new_tokens": 12})
    assert result.target_text == " the arts, music, and his love of the ocean."
    assert "".join(result.target_tokens) == result.target_text


def test_a_shared_prefix_changes_nothing(smollm2: ap.Explainer) -> None:
    prompt = ap.Template(
        "The following is a story about a lawyer who lives by the sea. It begins like this: {a} {b} {c}",
        {"a": "Once", "b": "upon", "c": "a time"},
        {"a": "Never", "b": "under", "c": "one"},
    )
    shared = smollm2.attribute(prompt, TARGET, method="shapley")
    whole = ap.Explainer((smollm2.session.model, smollm2.session.tokenizer), share_prefixes=False)
    apart = whole.attribute(prompt, TARGET, method="shapley")
    assert shared.provenance.forwarded_tokens < 0.6 * apart.provenance.forwarded_tokens
    assert shared.token_values == pytest.approx(apart.token_values, abs=1e-4)


@pytest.mark.parametrize("name", WORKS)
def test_what_is_benchmarked_reads_hardly_more_than_its_prefix_tree(smollm2: ap.Explainer, name: str) -> None:
    """Counted on a narrow model with SmolLM2's tokens; the tree by another implementation than the planner's."""
    session = smollm2.session
    with torch.random.fork_rng():
        config = transformers.LlamaConfig(
            vocab_size=session.model.config.vocab_size,
            max_position_embeddings=session.model.config.max_position_embeddings,
            hidden_size=16,
            intermediate_size=16,
            num_hidden_layers=1,
            num_attention_heads=2,
        )
        narrow = transformers.LlamaForCausalLM(config).eval()
    watcher = Watcher()
    with ap.Explainer((narrow, session.tokenizer), progress=False, plugins=[watcher]) as explainer:
        least, result = need(explainer, watcher, work(name))
    assert least.tokens <= result.provenance.forwarded_tokens <= 1.15 * least.tokens
