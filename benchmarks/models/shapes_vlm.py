"""Train the image-text model ``shapes``: a LLaVA of 0.6 million parameters that answers questions about small pictures.

    python -m benchmarks.models.shapes_vlm --out core/apportion/models/shapes_vlm

Takes about ten minutes on one core. Plain training fails: the tower must first learn what each patch shows, and where.
So there are three stages: (1) class and position of each patch, from the projector's outputs, with heads that are
thrown away; (2) answers to questions; (3) the same with some words of the questions absent, removed or replaced by
``<unk>``, because perturbed prompts look like that.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from apportion.testing.shapes import (
    CELL,
    COLOURS,
    GRID,
    PICTURE,
    SHAPES,
    WORDS,
    Scene,
    Thing,
    ask,
    draw,
    held_out,
    random_scene,
)

SPECIAL = ["<pad>", "<s>", "</s>", "<unk>", "<image>"]
PAD, START, END, UNKNOWN, IMAGE = range(len(SPECIAL))
VOCABULARY = {word: number for number, word in enumerate([*SPECIAL, *sorted(WORDS)])}
PATCHES = GRID * GRID
WIDTH = 96
BATCH = 64
CHAT = (
    "{{ bos_token }}{% for m in messages %}{% if m['content'] is string %}{{ ' ' + m['content'] }}{% else %}"
    "{% for c in m['content'] %}{% if c['type']=='image' %}<image>{% else %}{{ ' ' + c['text'] }}{% endif %}"
    "{% endfor %}{% endif %}{% if m['role']=='assistant' %}{{ ' ' + eos_token }}{% endif %}{% endfor %}"
)
"""Image and question, after which the answer follows."""


def new_processor():
    """A processor with a tokenizer of whole words."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers
    from transformers import LlavaProcessor, PreTrainedTokenizerFast
    from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil

    words = Tokenizer(models.WordLevel(VOCABULARY, unk_token="<unk>"))
    words.pre_tokenizer, words.normalizer = pre_tokenizers.Whitespace(), normalizers.Lowercase()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=words, pad_token="<pad>", bos_token="<s>", eos_token="</s>", unk_token="<unk>",
        extra_special_tokens={"image_token": "<image>"}, padding_side="right",
    )  # fmt: skip
    size = {"height": PICTURE, "width": PICTURE}
    pictures = SiglipImageProcessorPil(size=size, image_mean=[0.5] * 3, image_std=[0.5] * 3)
    return LlavaProcessor(
        pictures, tokenizer, patch_size=CELL, vision_feature_select_strategy="full", chat_template=CHAT,
        image_token="<image>", num_additional_image_tokens=0,
    )  # fmt: skip


def new_model():
    """The untrained model."""
    from transformers import LlamaConfig, LlavaConfig, LlavaForConditionalGeneration, SiglipVisionConfig

    vision = SiglipVisionConfig(
        hidden_size=WIDTH, intermediate_size=2 * WIDTH, num_hidden_layers=2, num_attention_heads=4,
        image_size=PICTURE, patch_size=CELL, vision_use_head=False,
    )  # fmt: skip
    text = LlamaConfig(
        hidden_size=WIDTH, intermediate_size=3 * WIDTH, num_hidden_layers=3, num_attention_heads=4,
        num_key_value_heads=4, vocab_size=len(VOCABULARY), max_position_embeddings=256, pad_token_id=PAD,
        bos_token_id=START, eos_token_id=END, tie_word_embeddings=True, rope_theta=1000.0,
    )  # fmt: skip
    return LlavaForConditionalGeneration(
        LlavaConfig(
            vision_config=vision, text_config=text, image_token_id=IMAGE, vision_feature_layer=-1,
            vision_feature_select_strategy="full", image_seq_length=PATCHES, tie_word_embeddings=True,
        )
    )  # fmt: skip


def pixel_values(pictures: np.ndarray) -> Tensor:
    """Pictures as the processor gives them to the model."""
    return torch.from_numpy(pictures).permute(0, 3, 1, 2).float().div_(127.5).sub_(1)


def patches(rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    """Crowded pictures, and the class of each patch: 0 for nothing."""
    pictures, classes = np.empty((BATCH, PICTURE, PICTURE, 3), np.uint8), np.zeros((BATCH, PATCHES), int)
    for i in range(BATCH):
        cells = rng.permutation(PATCHES)[: rng.integers(4, 9)]
        kinds = [(int(rng.integers(len(COLOURS))), int(rng.integers(len(SHAPES)))) for _ in cells]
        things = [
            Thing(list(COLOURS)[colour], SHAPES[shape], *divmod(int(cell), GRID))
            for (colour, shape), cell in zip(kinds, cells, strict=True)
        ]
        pictures[i] = draw(Scene(tuple(things)), rng)
        classes[i, cells] = [1 + colour * len(SHAPES) + shape for colour, shape in kinds]
    return pixel_values(pictures), torch.from_numpy(classes)


def questions(rng: np.random.Generator, dropout: float) -> tuple[Tensor, Tensor, Tensor]:
    """Pictures, token ids of questions with answers, and labels; only answers have any."""
    pictures, rows = np.empty((BATCH, PICTURE, PICTURE, 3), np.uint8), []
    for i in range(BATCH):
        scene = random_scene(rng)
        while held_out(scene):
            scene = random_scene(rng)
        pictures[i] = draw(scene, rng)
        asked = ask(scene, rng)
        prompt = [VOCABULARY[word] for word in asked.text.split()]
        if rng.random() < dropout:
            share, removed = rng.random(), rng.random() < 0.5
            absent = rng.random(len(prompt)) < share
            shown = zip(prompt, absent, strict=True)
            prompt = [UNKNOWN if gone else token for token, gone in shown if not (gone and removed)]
        answer = [*(VOCABULARY[word] for word in asked.answer.split()), END]
        rows.append(([START, *[IMAGE] * PATCHES, *prompt], answer))
    width = max(len(before) + len(after) for before, after in rows)
    ids, labels = torch.full((BATCH, width), PAD), torch.full((BATCH, width), -100)
    for i, (before, after) in enumerate(rows):
        ids[i, : len(before) + len(after)] = torch.tensor(before + after)
        labels[i, len(before) : len(before) + len(after)] = torch.tensor(after)
    return pixel_values(pictures), ids, labels


def train(parameters: list, loss: Callable[[], Tensor], steps: int, rate: Callable[[int], float], name: str) -> None:
    """Minimise a loss, and report it every 100 steps."""
    optimiser = torch.optim.AdamW(parameters, lr=1.0, betas=(0.9, 0.98), weight_decay=0.02)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, rate)
    started, mean = time.time(), None
    for step in range(1, steps + 1):
        found = loss()
        optimiser.zero_grad(set_to_none=True)
        found.backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimiser.step()
        schedule.step()
        mean = found.item() if mean is None else 0.97 * mean + 0.03 * found.item()
        if step % 100 == 0:
            print(f"{name}: step {step} of {steps}, loss {mean:.4f}, {time.time() - started:.0f} s", flush=True)


def cosine(peak: float, steps: int, warm: int = 150) -> Callable[[int], float]:
    """A rate that rises to its peak, and falls along a cosine."""
    return lambda step: (
        peak * min((step + 1) / warm, 1) * (0.49 * (1 + math.cos(math.pi * min(1, step / steps))) + 0.02)
    )


def main() -> None:
    """Train and save the model."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder for the model")
    parser.add_argument("--steps", type=int, nargs=3, default=[400, 2500, 2200], help="steps of each stage")
    given = parser.parse_args()
    torch.manual_seed(0)
    torch.set_num_threads(1)
    rng = np.random.default_rng(0)
    model, processor = new_model(), new_processor()
    first, second, third = given.steps

    head = nn.Linear(WIDTH, 1 + len(COLOURS) * len(SHAPES) + PATCHES)
    kinds = 1 + len(COLOURS) * len(SHAPES)
    weights = torch.tensor([0.3] + [1.0] * (kinds - 1))

    def patch_loss() -> Tensor:
        pixels, classes = patches(rng)
        found = head(torch.stack(list(model.get_image_features(pixels).pooler_output)))
        places = torch.arange(PATCHES).repeat(len(pixels))
        what = cross_entropy(found[..., :kinds].flatten(0, 1), classes.flatten(), weight=weights)
        return what + 0.3 * cross_entropy(found[..., kinds:].flatten(0, 1), places)

    def answer_loss(dropout: float) -> Tensor:
        pixels, ids, labels = questions(rng, dropout)
        logits = model(
            input_ids=ids, pixel_values=pixels, attention_mask=(ids != PAD).long(),
            logits_to_keep=ids.shape[1] - PATCHES,
        ).logits[:, :-1]  # fmt: skip
        return cross_entropy(logits.flatten(0, 1), labels[:, PATCHES + 1 :].flatten(), ignore_index=-100)

    tower = [p for name, p in model.named_parameters() if "vision_tower" in name or "projector" in name]
    train([*tower, *head.parameters()], patch_loss, first, cosine(2e-3, first, 60), "patches")
    model.train()
    everything = list(model.parameters())
    train(everything, lambda: answer_loss(0.0), second, cosine(1.5e-3, second), "questions")
    train(everything, lambda: answer_loss(0.4), third, cosine(1e-3, third), "questions with absent words")
    model.eval().save_pretrained(given.out)
    processor.save_pretrained(given.out)


if __name__ == "__main__":
    main()
