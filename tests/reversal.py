"""A small T5, trained on the spot to write five letters in reverse: what it says about each letter is known."""

from __future__ import annotations

import functools

import torch
import transformers
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast, T5ForConditionalGeneration

__all__ = ["HIDDEN", "LETTERS", "reversal_model", "reversal_prompts", "reversal_tokenizer"]

LETTERS = "bcdfghjklmnpq"
LENGTH = 5
PAD, END, HIDDEN = "<pad>", "</s>", "<unk>"
"""``HIDDEN`` takes the place of some letters in training, so that it stands for a letter that is not known."""
STEPS, ROWS, RATE = 400, 64, 1.5e-2


@functools.cache
def reversal_tokenizer() -> PreTrainedTokenizerFast:
    """One token for each letter, with spaces in between; the end of a text is appended, as T5's tokenizer does."""
    vocabulary = {token: number for number, token in enumerate((PAD, END, HIDDEN, *LETTERS))}
    core = Tokenizer(models.WordLevel(vocabulary, unk_token=HIDDEN))
    core.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    core.post_processor = processors.TemplateProcessing(single=f"$A {END}", special_tokens=[(END, vocabulary[END])])
    return PreTrainedTokenizerFast(tokenizer_object=core, pad_token=PAD, eos_token=END, unk_token=HIDDEN)


@functools.cache
def reversal_model() -> T5ForConditionalGeneration:
    """The trained model, in fp32; it takes a few seconds, and is the same in every run."""
    tokenizer = reversal_tokenizer()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        config = transformers.T5Config(
            vocab_size=len(tokenizer), d_model=32, d_kv=8, d_ff=64, num_layers=1, num_decoder_layers=1, num_heads=4,
            dropout_rate=0.0, decoder_start_token_id=0, pad_token_id=0, eos_token_id=1,
        )  # fmt: skip
        model = T5ForConditionalGeneration(config)
        optimizer = torch.optim.AdamW(model.parameters(), lr=RATE, fused=True)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, total_steps=STEPS)
        end = torch.full((ROWS, 1), 1)
        for _ in range(STEPS):
            letters = torch.randint(3, len(tokenizer), (ROWS, LENGTH))
            hidden = torch.rand(letters.shape) < 0.15
            source = torch.cat([letters.masked_fill(hidden, 2), end], dim=1)
            optimizer.zero_grad()
            model(input_ids=source, labels=torch.cat([letters.flip(1), end], dim=1)).loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            schedule.step()
    return model.eval().requires_grad_(False)


def reversal_prompts(count: int) -> list[str]:
    """Random prompts of five letters with spaces in between."""
    draw = torch.Generator().manual_seed(1)
    rows = torch.randint(len(LETTERS), (count, LENGTH), generator=draw).tolist()
    return [" ".join(LETTERS[i] for i in row) for row in rows]
