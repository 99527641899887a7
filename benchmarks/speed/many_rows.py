"""Peak memory of many evaluations of a long prompt: 2,048 of the 60-sentence document.

On two cores SmolLM2 would take hours for them, so a random Llama with the demo model's tokenizer and vocabulary, but
two narrow layers, reads the same rows. What a batch holds then is what does not depend on the model's width: token
rows, plans, values, and logits if anybody kept them.
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
    """The demo model's tokenizer on a random model of two layers, 64 channels wide."""
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
    """Of the process that asks."""
    explainer = narrow()
    prompt = ap.Documents(texts.QUESTION, [texts.document()], by="sentences")
    return peak_of(lambda: explainer.attribute(prompt, texts.ANSWER, method="context_cite", budget=EVALUATIONS))


if __name__ == "__main__":
    found = peak()
    print(f"{found.loaded} {found.beyond}", file=sys.stdout)
