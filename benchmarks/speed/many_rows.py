"""Peak memory of many evaluations of a long prompt: 2,048 of the 60-sentence document.

SmolLM2 would take hours for them on two cores. Therefore a random Llama with two narrow layers, but the demo model's
tokenizer and vocabulary, reads the same rows. This measures the memory that does not depend on the width of the model:
token rows, plans, values, and logits if any were kept.
"""

from __future__ import annotations

import sys

import torch
from benchmarks.speed.memory import Peak, peak_of
from transformers import LlamaConfig, LlamaForCausalLM

import apportion as ap
from apportion.benchmarking import texts
from apportion.models.spec import model_spec
from apportion_backends.torch.loading import open_model

__all__ = ["EVALUATIONS", "narrow", "peak"]

EVALUATIONS = 2048


def narrow() -> ap.Explainer:
    """An explainer of a random model with two layers of 64 channels, and the demo model's tokenizer."""
    demo = open_model(model_spec("smollm2"))
    settings = demo.model.config
    config = LlamaConfig(
        vocab_size=settings.vocab_size,
        max_position_embeddings=settings.max_position_embeddings,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
    )
    torch.manual_seed(0)
    return ap.Explainer((LlamaForCausalLM(config).eval(), demo.tokenizer), progress=False)


def peak() -> Peak:
    """Peak memory of the current process."""
    explainer = narrow()
    prompt = ap.Documents(texts.QUESTION, [texts.document()], by="sentences")
    return peak_of(lambda: explainer.attribute(prompt, texts.ANSWER, method="context_cite", budget=EVALUATIONS))


if __name__ == "__main__":
    found = peak()
    print(f"{found.loaded} {found.beyond}", file=sys.stdout)
