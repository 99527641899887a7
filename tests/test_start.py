"""What makes a second start quick: the probe's findings are remembered, GGUF files are converted once."""

from __future__ import annotations

import copy
import os
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import PreTrainedModel
from transformers.models.llama import modeling_llama

import apportion as ap
from apportion.testing import tiny
from apportion_backends.torch import backend as backend_module
from apportion_backends.torch import remembered


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A tiny model in files, and a cache folder that is empty."""
    monkeypatch.setenv("APPORTION_CACHE", str(tmp_path / "cache"))
    tiny.model(dtype=torch.float32).save_pretrained(tmp_path / "model")
    tiny.tokenizer().save_pretrained(tmp_path / "model")
    return tmp_path / "model"


@pytest.fixture
def probes(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A name for each time that a model is tried."""
    found: list[str] = []
    real = remembered.probe

    def counted(model: Any) -> Any:
        found.append(type(model).__name__)
        return real(model)

    monkeypatch.setattr(remembered, "probe", counted)
    return found


def values(folder: Path, **options: Any) -> np.ndarray:
    with ap.Explainer(str(folder), progress=False, **options) as explainer:
        return explainer.attribute("one two three", " x", method="ablation").values


def test_a_model_from_files_is_tried_once(folder: Path, probes: list[str], tmp_path: Path) -> None:
    first, second = values(folder), values(folder)
    np.testing.assert_array_equal(first, second)
    assert len(probes) == 1
    values(folder, dtype="bfloat16")
    assert len(probes) == 2, "another dtype rounds otherwise"
    (note, _) = sorted((tmp_path / "cache" / "traits").iterdir())
    for damage in (b"", b"{", b"[]", b'{"batching": true}', note.read_bytes().replace(b"true", b"1")):
        for path in (tmp_path / "cache" / "traits").iterdir():
            path.write_bytes(damage)
        before = len(probes)
        np.testing.assert_array_equal(values(folder), first)
        assert len(probes) == before + 1, damage


def test_other_weights_are_tried_anew(folder: Path, probes: list[str]) -> None:
    values(folder)
    model = copy.deepcopy(tiny.model(dtype=torch.float32))
    model.model.layers[0].mlp.up_proj.weight.data.mul_(2)
    model.save_pretrained(folder)
    values(folder)
    assert len(probes) == 2


def test_objects_are_always_tried(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They may differ from their weights in ways that no fingerprint shows."""

    def refuse(_: object) -> None:
        raise AssertionError("looked up")

    monkeypatch.setattr(backend_module, "remembered_traits", refuse, raising=False)
    monkeypatch.setattr(remembered, "remembered_traits", refuse)
    with ap.Explainer((tiny.model(), tiny.tokenizer()), progress=False) as explainer:
        assert explainer.session.layout.packing
    with pytest.raises(AssertionError, match="looked up"):
        ap.Explainer(str(folder))


def test_a_cache_folder_that_cannot_be_written_costs_time_only(
    folder: Path, probes: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("APPORTION_CACHE", str(tmp_path / "file"))
    np.testing.assert_array_equal(values(folder), values(folder))
    assert len(probes) == 2


def test_patched_code_is_tried_anew(folder: Path, probes: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Packages that speed models up replace methods of classes, functions of modules, or register attention."""
    values(folder)
    attention = modeling_llama.LlamaAttention
    own = attention.forward

    def louder(self: Any, *args: Any, **options: Any) -> Any:
        states, weights = own(self, *args, **options)
        return states * 1.5, weights

    with monkeypatch.context() as patch:
        patch.setattr(attention, "forward", louder)
        assert values(folder).any()
        assert len(probes) == 2
    with monkeypatch.context() as patch:
        patch.setattr(modeling_llama, "rotate_half", lambda x: x)
        values(folder)
        assert len(probes) == 3
    values(folder)
    assert len(probes) == 3


# --- GGUF ------------------------------------------------------------------------------------------------------------


def write_gguf(path: Path, *, leave_out: str = "") -> None:
    """A random Llama of two layers with the tiny byte-level tokenizer, as llama.cpp would store it."""
    gguf = pytest.importorskip("gguf")
    pytest.importorskip("accelerate")
    draw = np.random.default_rng(0)
    width, inner, heads, shared, layers = 32, 48, 4, 2, 2
    vocabulary = tiny.tokenizer().get_vocab()
    tokens = [*sorted(vocabulary, key=lambda token: vocabulary[token]), "ab", "cd"]
    writer = gguf.GGUFWriter(str(path), "llama")
    writer.add_context_length(512)
    writer.add_embedding_length(width)
    writer.add_block_count(layers)
    writer.add_feed_forward_length(inner)
    writer.add_head_count(heads)
    writer.add_head_count_kv(shared)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_dimension_count(width // heads)
    writer.add_vocab_size(len(tokens))
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(tokens)
    writer.add_token_types([1] * len(tokens))
    writer.add_token_merges(["a b", "c d"])
    writer.add_bos_token_id(vocabulary["<s>"])
    writer.add_eos_token_id(vocabulary["</s>"])

    def add(name: str, *shape: int) -> None:
        tensor = draw.normal(0, 0.3, shape).astype(np.float32)
        if name != leave_out:
            writer.add_tensor(name, tensor)

    add("token_embd.weight", len(tokens), width)
    add("output.weight", len(tokens), width)
    writer.add_tensor("output_norm.weight", np.ones(width, dtype=np.float32))
    for i in range(layers):
        for name in ("attn_norm", "ffn_norm"):
            writer.add_tensor(f"blk.{i}.{name}.weight", np.ones(width, dtype=np.float32))
        kept = width * shared // heads
        for name, rows in (("attn_q", width), ("attn_k", kept), ("attn_v", kept), ("attn_output", width)):
            add(f"blk.{i}.{name}.weight", rows, width)
        for name in ("ffn_gate", "ffn_up"):
            add(f"blk.{i}.{name}.weight", inner, width)
        add(f"blk.{i}.ffn_down.weight", width, inner)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


@pytest.fixture
def gguf_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("APPORTION_CACHE", str(tmp_path / "cache"))
    write_gguf(tmp_path / "tiny.gguf")
    return tmp_path / "tiny.gguf"


def test_a_gguf_file_is_converted_once(
    gguf_file: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    first = values(gguf_file)
    assert first.any()
    said = capsys.readouterr().err
    assert "Converted tiny.gguf once" in " ".join(said.split())
    monkeypatch.setattr("apportion.models.gguf.convert", None)
    np.testing.assert_array_equal(values(gguf_file), first)
    moved = gguf_file.rename(gguf_file.with_name("moved.gguf"))
    np.testing.assert_array_equal(values(moved), first)
    assert capsys.readouterr().err == ""


def test_another_content_is_another_model(gguf_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    values(gguf_file)
    with gguf_file.open("r+b") as file:
        file.seek(-4, 2)
        file.write(b"\0\0\0\1")
    converted: list[Path] = []
    monkeypatch.setattr("apportion.models.gguf.convert", lambda source, target: converted.append(source) or 1 / 0)
    with pytest.warns(RuntimeWarning, match="tiny.gguf could not be converted, so it is read as it is"):
        values(gguf_file)
    assert converted == [gguf_file]


def test_a_conversion_that_gives_other_numbers_is_not_used(gguf_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file is read as it is then, with a warning."""
    expected = values(gguf_file)
    for path in (gguf_file.parent / "cache" / "models").iterdir():
        if path.name.startswith("gguf-") and path.name != "gguf-digests":
            path.rename(path.with_name("elsewhere"))
    real = PreTrainedModel.save_pretrained

    def other(self: Any, *args: Any, **options: Any) -> None:
        self.lm_head.weight.data.mul_(1.5)
        real(self, *args, **options)

    monkeypatch.setattr(PreTrainedModel, "save_pretrained", other)
    with pytest.warns(RuntimeWarning, match=r"tiny.gguf could not be converted.*logits differ by"):
        found = values(gguf_file)
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_a_file_that_was_replaced_is_another_file(gguf_file: Path) -> None:
    """Also with the size and time of change of the old one."""
    first, before = values(gguf_file), gguf_file.stat()
    content = bytearray(gguf_file.read_bytes())
    content[-4:] = np.float32(7.0).tobytes()
    gguf_file.write_bytes(content)
    os.utime(gguf_file, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert not np.array_equal(values(gguf_file), first)


def test_what_is_left_of_a_conversion_is_replaced(gguf_file: Path) -> None:
    first = values(gguf_file)
    (made,) = (p for p in (gguf_file.parent / "cache" / "models").iterdir() if (p / "config.json").exists())
    (made / "config.json").unlink()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        np.testing.assert_array_equal(values(gguf_file.rename(gguf_file.with_suffix(".GGUF"))), first)
    (made / "model.safetensors").write_bytes(b"x")
    with pytest.raises(ap.ModelError, match=f"Delete {made} to make it again"):
        values(gguf_file.with_suffix(".GGUF"))


def test_a_file_that_lacks_weights_is_not_converted(gguf_file: Path) -> None:
    """Random numbers in their place would be taken for the model's from then on."""
    write_gguf(gguf_file, leave_out="blk.1.ffn_up.weight")
    with pytest.raises(ap.ModelError, match=r"gguf' lacks 1 of the 21 .*\(model.layers.1.mlp.up_proj.weight\), which"):
        values(gguf_file)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        np.testing.assert_array_equal(values(gguf_file, allow_missing=True), values(gguf_file, allow_missing=True))
    with pytest.raises(ap.ModelError, match="lacks 1 of the 21"):
        values(gguf_file)
    write_gguf(gguf_file, leave_out="output.weight")
    assert values(gguf_file).any(), "the input embedding is the output layer then"
