"""Tiny image-text models with random weights and processors of their own, and reference scores for them.

Nothing is downloaded. Weights are larger than usual, so that every part of a prompt has an effect that can be measured,
and what some families initialise to zero is not zero here, because their pictures would have no effect.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
import transformers
from jaxtyping import Float, UInt8
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from apportion.models.processor import without_video
from apportion.models.quiet import quiet_transformers
from apportion.protocols.model import ModelSpec
from apportion.protocols.row import Media, Row
from apportion.rendering.picture_writer import PictureWriter, processed
from apportion.testing import tiny

__all__ = ["FAMILIES", "logits", "model", "picture", "processor", "rows", "spec"]

tf: Any = transformers
"""Its types know only some of the parameters of configurations."""

LARGER = 4.0
"""Factor of all weights."""
SIDE = 64
"""Pixels of a picture as the models read it, in each direction."""
LENGTH = 4096
TILES = [f"<row_{row}_col_{column}>" for row in range(1, 5) for column in range(1, 5)]
VISION = {
    "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "image_size": SIDE,
    "patch_size": 16,
}  # fmt: skip


def tokenizer(extra: Sequence[str] = (), **named: str) -> PreTrainedTokenizerFast:
    """One token per byte, and special tokens.

    Args:
        extra: more special tokens.
        **named: special tokens that processors look up by name, such as ``image_token="<image>"``.
    """
    core = tiny.tokenizer().backend_tokenizer
    made: PreTrainedTokenizerFast = tf.PreTrainedTokenizerFast(
        tokenizer_object=core, bos_token="<s>", eos_token="</s>", extra_special_tokens=named, padding_side="right"
    )
    made.add_tokens(list(extra), special_tokens=True)
    return made


def text_config(vocabulary: int, **more: Any) -> dict[str, Any]:
    """Sizes of the language model."""
    return {
        "vocab_size": vocabulary, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2,
        "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": LENGTH, **more,
    }  # fmt: skip


def _llava() -> tuple[Any, Any]:
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    tok = tokenizer(image_token="<image>")
    pictures = CLIPImageProcessorPil(size={"shortest_edge": SIDE}, crop_size={"height": SIDE, "width": SIDE})
    made = tf.LlavaProcessor(
        pictures, tok, patch_size=16, vision_feature_select_strategy="default", num_additional_image_tokens=1
    )
    config = tf.LlavaConfig(
        vision_config=tf.CLIPVisionConfig(**VISION), text_config=tf.LlamaConfig(**text_config(len(tok))),
        image_token_id=tok.image_token_id, vision_feature_layer=-2, vision_feature_select_strategy="default",
    )  # fmt: skip
    return config, made


def _idefics3() -> tuple[Any, Any]:
    from transformers.models.idefics3.image_processing_pil_idefics3 import Idefics3ImageProcessorPil

    tok = tokenizer(["<fake_token_around_image>", "<image>", "<end_of_utterance>", "<global-img>", *TILES])
    pictures = Idefics3ImageProcessorPil(
        size={"longest_edge": 2 * SIDE}, max_image_size={"longest_edge": SIDE}, do_image_splitting=True
    )
    config = tf.Idefics3Config(
        vision_config={**VISION, "patch_size": 8}, scale_factor=2, pad_token_id=1,
        text_config={"model_type": "llama", **text_config(len(tok), pad_token_id=1)},
        image_token_id=tok.convert_tokens_to_ids("<image>"),
    )  # fmt: skip
    return config, tf.Idefics3Processor(pictures, tok, image_seq_len=16)


def _smolvlm() -> tuple[Any, Any]:
    from transformers.models.smolvlm.image_processing_pil_smolvlm import SmolVLMImageProcessorPil

    tok = tokenizer(
        ["<end_of_utterance>", *TILES], image_token="<image>", fake_image_token="<fake_token_around_image>",
        global_image_token="<global-img>",
    )  # fmt: skip
    pictures = SmolVLMImageProcessorPil(
        size={"longest_edge": 2 * SIDE}, max_image_size={"longest_edge": SIDE}, do_image_splitting=True
    )
    config = tf.SmolVLMConfig(
        vision_config={**VISION, "patch_size": 8}, scale_factor=2, pad_token_id=1, image_token_id=tok.image_token_id,
        text_config={"model_type": "llama", **text_config(len(tok), pad_token_id=1)},
    )  # fmt: skip
    return config, without_video(tf.SmolVLMProcessor)(pictures, tok, None, image_seq_len=16)


def _qwen(name: str) -> Callable[[], tuple[Any, Any]]:
    def make() -> tuple[Any, Any]:
        from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

        tok = tokenizer(
            image_token="<|image_pad|>", video_token="<|video_pad|>", vision_start_token="<|vision_start|>",
            vision_end_token="<|vision_end|>",
        )  # fmt: skip
        pictures = Qwen2VLImageProcessorPil(
            patch_size=8, temporal_patch_size=2, merge_size=2, image_mean=[0.5] * 3, image_std=[0.5] * 3,
            size={"shortest_edge": 32 * 32, "longest_edge": 96 * 96},
        )  # fmt: skip
        vision: dict[str, Any] = {
            "depth": 2, "intermediate_size": 64, "num_heads": 4, "patch_size": 8, "spatial_merge_size": 2,
            "temporal_patch_size": 2,
        }  # fmt: skip
        sizes: dict[str, dict[str, Any]] = {
            "Qwen2VL": {"embed_dim": 32, "hidden_size": 64, "mlp_ratio": 2},
            "Qwen2_5_VL": {"hidden_size": 32, "window_size": 32, "fullatt_block_indexes": [1], "out_hidden_size": 64},
            "Qwen3VL": {
                "hidden_size": 32, "out_hidden_size": 64, "num_position_embeddings": 64,
                "deepstack_visual_indexes": [0, 1],
            },
        }  # fmt: skip
        sections = [4, 2, 2] if name == "Qwen3VL" else [2, 3, 3]
        text = text_config(
            len(tok), head_dim=16,
            rope_parameters={"rope_type": "default", "rope_theta": 1e4, "mrope_section": sections},
        )  # fmt: skip
        config = getattr(tf, f"{name}Config")(
            vision_config=vision | sizes[name], text_config=text, image_token_id=tok.image_token_id,
            video_token_id=tok.video_token_id, vision_start_token_id=tok.vision_start_token_id,
            vision_end_token_id=tok.vision_end_token_id,
        )  # fmt: skip
        return config, without_video(getattr(tf, f"{name}Processor"))(pictures, tok)

    return make


def _paligemma() -> tuple[Any, Any]:
    from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil

    tok = tokenizer(image_token="<image>")
    pictures: Any = SiglipImageProcessorPil(size={"height": SIDE, "width": SIDE})
    pictures.image_seq_length = 16
    made = tf.PaliGemmaProcessor(pictures, tok)
    config = tf.PaliGemmaConfig(
        vision_config={"model_type": "siglip_vision_model", "vision_use_head": False, "projection_dim": 64, **VISION},
        text_config={"model_type": "gemma", **text_config(len(made.tokenizer), head_dim=16)}, projection_dim=64,
        image_token_id=made.image_token_id, hidden_size=64,
    )  # fmt: skip
    return config, made


def _gemma3() -> tuple[Any, Any]:
    from transformers.models.gemma3.image_processing_pil_gemma3 import Gemma3ImageProcessorPil

    tok = tokenizer(image_token="<image_soft_token>", boi_token="<start_of_image>", eoi_token="<end_of_image>")
    pictures = Gemma3ImageProcessorPil(size={"height": SIDE, "width": SIDE}, image_seq_length=4)
    text = text_config(
        len(tok), num_hidden_layers=2, head_dim=16, sliding_window=32, query_pre_attn_scalar=16,
        layer_types=["sliding_attention", "full_attention"],
    )  # fmt: skip
    config = tf.Gemma3Config(
        vision_config={"model_type": "siglip_vision_model", "vision_use_head": False, **VISION}, text_config=text,
        mm_tokens_per_image=4, boi_token_index=tok.boi_token_id, eoi_token_index=tok.eoi_token_id,
        image_token_index=tok.image_token_id, image_token_id=tok.image_token_id,
    )  # fmt: skip
    return config, tf.Gemma3Processor(pictures, tok, image_seq_length=4)


def _internvl() -> tuple[Any, Any]:
    from transformers.models.got_ocr2.image_processing_pil_got_ocr2 import GotOcr2ImageProcessorPil

    tok = tokenizer(
        start_image_token="<img>", end_image_token="</img>", context_image_token="<IMG_CONTEXT>", video_token="<video>"
    )
    pictures = GotOcr2ImageProcessorPil(size={"height": SIDE, "width": SIDE}, crop_to_patches=False, max_patches=1)
    config = tf.InternVLConfig(
        vision_config={**VISION, "image_size": [SIDE, SIDE], "patch_size": [8, 8]}, image_seq_length=16,
        text_config={"model_type": "qwen2", **text_config(len(tok))}, image_token_id=tok.context_image_token_id,
        downsample_ratio=0.5,
    )  # fmt: skip
    return config, without_video(tf.InternVLProcessor)(pictures, tok, image_seq_length=16)


_MAKERS: Mapping[str, Callable[[], tuple[Any, Any]]] = {
    "llava": _llava,
    "idefics3": _idefics3,
    "smolvlm": _smolvlm,
    "qwen2_vl": _qwen("Qwen2VL"),
    "qwen2_5_vl": _qwen("Qwen2_5_VL"),
    "qwen3_vl": _qwen("Qwen3VL"),
    "paligemma": _paligemma,
    "gemma3": _gemma3,
    "internvl": _internvl,
}
FAMILIES = tuple(_MAKERS)
"""Names of the families."""

_TYPES: Mapping[str, tuple[str, bool, int]] = {
    "qwen2_vl": ("mm_token_type_ids", True, 0),
    "qwen2_5_vl": ("mm_token_type_ids", True, 0),
    "qwen3_vl": ("mm_token_type_ids", True, 0),
    "gemma3": ("token_type_ids", True, 0),
    "paligemma": ("token_type_ids", False, 1),
}
"""For families that read a number for each token: its name, 1 for tokens of pictures, and the number of the target."""


@functools.cache
def _made(family: str) -> tuple[Any, Any]:
    with quiet_transformers():
        return _MAKERS[family]()


@functools.cache
def model(family: str, dtype: torch.dtype = torch.float32) -> PreTrainedModel:
    """A model of a family, the same at every call."""
    config, _ = _made(family)
    with torch.random.fork_rng([]):
        torch.manual_seed(0)
        made: PreTrainedModel = tf.AutoModelForImageTextToText.from_config(config).eval().to(dtype)
        if family == "gemma3":  # initialised to zero
            torch.nn.init.normal_(made.model.multi_modal_projector.mm_input_projection_weight, std=0.1)
    with torch.no_grad():
        for parameter in made.parameters():
            if parameter.ndim > 1:
                parameter.mul_(LARGER)
    return made


def processor(family: str) -> Any:
    """The processor of a family."""
    return _made(family)[1]


def spec(family: str, dtype: torch.dtype = torch.float32) -> ModelSpec:
    """Model and processor, as a user would pass them."""
    made = processor(family)
    return ModelSpec(f"tiny {family}", made.tokenizer, made, objects=model(family, dtype))


def picture(seed: int, width: int = SIDE, height: int = SIDE) -> UInt8[np.ndarray, "H W 3"]:
    """Random blocks of colour."""
    blocks = np.random.default_rng(seed).integers(0, 255, (4, 4, 3), dtype=np.uint8)
    return blocks[np.arange(height) * 4 // height][:, np.arange(width) * 4 // width]


def rows(family: str) -> list[Row]:
    """Rows that differ in all that a backend may get wrong.

    Two pictures behind one prompt, one picture before two prompts, pictures of two sizes, prompts and targets of
    several lengths, and a prompt with two pictures.
    """
    sizes = [(64, 64), (64, 64), (96, 64)]
    pictures = [picture(seed, *size) for seed, size in enumerate(sizes)]
    wanted = [
        ((0,), "What is this?", "a red one"),
        ((1,), "What is this?", "a red one"),
        ((0,), "What is left of it in the picture?", "no"),
        ((2,), "Where?", "in the corner"),
        ((2, 1), "Both?", "yes"),
    ]
    made, found = processor(family), []
    for which, text, target in wanted:
        writer = PictureWriter(made, [pictures[i] for i in which])
        ids = writer.read(writer.before(text), special_tokens=True)
        answer = made.tokenizer(target, add_special_tokens=False)["input_ids"]
        found.append(Row(ids, tuple(answer), tuple(Media.of("image", pictures[i]) for i in which)))
    return found


def logits(family: str, row: Row, dtype: torch.dtype = torch.float32) -> Float[Tensor, "T V"]:
    """Logits before each target token: the model's own forward of one row, which encodes the pictures by itself."""
    made, net = processor(family), model(family, dtype)
    ids = torch.tensor([row.read])
    inputs: dict[str, Any] = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    if row.media:
        pictures = [one.content() for one in row.media]
        writer = PictureWriter(made, pictures)
        seen = processed(made, writer.before(""), pictures, return_tensors="pt")
        pixels = {name: value for name, value in seen.items() if name.startswith(("pixel", "image"))}
        inputs |= {name: value.to(dtype) if value.is_floating_point() else value for name, value in pixels.items()}
    if family in _TYPES:
        name, pictured, of_target = _TYPES[family]
        types = (ids == net.config.image_token_id).long() if pictured else torch.zeros_like(ids)
        types[:, len(row.prompt) :] = of_target
        inputs[name] = types
    with torch.inference_mode():
        found: Tensor = net(**inputs, use_cache=False).logits[0, len(row.prompt) - 1 :]
    return found.double()
