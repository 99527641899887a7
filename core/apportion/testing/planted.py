"""Tiny models with weights set by hand, for which it is known what each token contributes.

Both are ordinary Llamas, so that every white-box method can look inside. Their normalisations change next to nothing
(the constant that is added to the mean square is large), and their gated layers return 0.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import transformers as tf
from jaxtyping import Float
from torch import Tensor
from transformers import PreTrainedModel

from apportion.models.quiet import quiet_transformers
from apportion.testing import tiny

__all__ = ["LOWERS", "OTHER", "RAISES", "TARGET", "contributions", "linear_model", "marked_model"]

RAISES, LOWERS, OTHER = "A", "B", "C"
"""Characters that the marked model attends to: one raises the first token of ``TARGET``, one lowers it, and one raises
the second."""
TARGET = "xy"

WIDTH, LAYERS, HEADS, HEAD = 32, 1, 4, 8
CONSTANT, MARK, FIRST, SECOND, OUT = 0, 1, 2, 3, 4
"""Dimensions of embeddings: 1 for all tokens; 1 for those to attend to; what they say of each target token; and two
from which the two logits are read."""
EPSILON = 1e12


def marked_model() -> PreTrainedModel:
    """A model in float64 that attends to a few characters only, wherever they are."""
    model = _empty()
    base = model.model
    with torch.no_grad():
        embeddings = base.embed_tokens.weight
        embeddings[:, 8:] = 0.05 * _normal(len(embeddings), WIDTH - 8)
        embeddings[:, CONSTANT] = 1.0
        for character, said in ((RAISES, (1.0, 0.0)), (LOWERS, (-1.0, 0.0)), (OTHER, (0.0, 1.0))):
            embeddings[_token(character), MARK] = 1.0
            embeddings[_token(character), [FIRST, SECOND]] = torch.tensor(said, dtype=embeddings.dtype)
        attention = base.layers[0].self_attn
        slow = HEAD // 2 - 1  # the pair of dimensions that positions turn least
        for head in range(HEADS):
            attention.q_proj.weight[head * HEAD + slow, CONSTANT] = 4.0
            attention.o_proj.weight[OUT, head * HEAD] = attention.o_proj.weight[OUT + 1, head * HEAD + 1] = 1.0
        for head in range(HEADS // 2):
            attention.k_proj.weight[head * HEAD + slow, MARK] = 4.0
            attention.v_proj.weight[head * HEAD, FIRST] = attention.v_proj.weight[head * HEAD + 1, SECOND] = 1.0
        for place, character in enumerate(TARGET):
            model.lm_head.weight[_token(character), OUT + place] = 1.0
    return model


def linear_model() -> PreTrainedModel:
    """A model in float64 whose logits are linear in the embeddings; see ``contributions``."""
    model = _empty()
    base = model.model
    with torch.no_grad():
        base.embed_tokens.weight.copy_(_normal(tiny.VOCABULARY, WIDTH))
        model.lm_head.weight.copy_(_normal(tiny.VOCABULARY, WIDTH, seed=1))
        attention = base.layers[0].self_attn  # queries and keys are 0, so all earlier tokens weigh the same
        attention.v_proj.weight.copy_(_normal(*attention.v_proj.weight.shape, seed=2) / 4)
        attention.o_proj.weight.copy_(_normal(*attention.o_proj.weight.shape, seed=3) / 4)
    return model


def contributions(
    prompt: Sequence[int], target: Sequence[int], baseline: Float[Tensor, "P D"] | None = None
) -> Float[Tensor, "K P"]:
    """Contribution of each prompt token to the logits of a target, in the linear model: for their sum, then for each.

    Args:
        prompt: token ids.
        target: token ids.
        baseline: embeddings that the contributions start from; ``None`` for 0.
    """
    model = linear_model()
    attention = model.model.layers[0].self_attn
    with torch.no_grad():
        points = model.model.embed_tokens.weight[list(prompt)]
        points = points if baseline is None else points - baseline
        shared = torch.repeat_interleave(attention.v_proj.weight.reshape(HEADS // 2, HEAD, WIDTH), 2, dim=0)
        mixed = points @ (attention.o_proj.weight @ shared.reshape(WIDTH, WIDTH)).T
        found = []
        for place, token in enumerate(target):
            seen = mixed / (len(prompt) + place)
            if place == 0:
                seen[-1] += points[-1]  # what the last token passes on itself
            found.append(seen @ model.lm_head.weight[token])
        return torch.stack([torch.stack(found).sum(0), *found])


def _empty() -> PreTrainedModel:
    """A Llama of one layer, whose weights are 0 and whose normalisations divide by a constant, and multiply with it."""
    config = tf.LlamaConfig(
        vocab_size=tiny.VOCABULARY,
        bos_token_id=256,
        eos_token_id=257,
        pad_token_id=257,
        hidden_size=WIDTH,
        intermediate_size=WIDTH,
        num_hidden_layers=LAYERS,
        num_attention_heads=HEADS,
        num_key_value_heads=HEADS // 2,
        rms_norm_eps=EPSILON,
        rope_parameters={"rope_type": "default", "rope_theta": 1e9},
        max_position_embeddings=512,
        tie_word_embeddings=False,
    )
    with quiet_transformers():
        built = tf.AutoModelForCausalLM.from_config(config).to(torch.float64)
    with torch.no_grad():
        for name, parameter in built.named_parameters():
            parameter.fill_(EPSILON**0.5 if "norm" in name else 0.0)
    made: PreTrainedModel = built.eval()
    return made


def _normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def _token(character: str) -> int:
    (found,) = tiny.tokenizer()(character)["input_ids"]
    return int(found)
