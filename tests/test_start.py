"""What makes starts quick: findings of the probe are remembered, GGUF files converted once, long prompts cut once."""

from __future__ import annotations

import copy
import os
import sys
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import pytest
import torch
from transformers import PreTrainedModel
from transformers.models.llama import modeling_llama

import apportion as ap
from apportion.testing import chats, tiny
from apportion.testing.echo import EchoBackend, EchoSession
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
        if path.name.startswith("gguf-"):
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


# --- long prompts ----------------------------------------------------------------------------------------------------


class LongContext(EchoBackend):
    """Reads prompts of any length."""

    def load(self, *args: Any, **options: Any) -> EchoSession:
        session = super().load(*args, **options)
        session.info = replace(session.info, context_length=None)
        return session


class FirstForwardError(Exception):
    pass


class StopAtFirstForward:
    @ap.hookimpl
    def apportion_score(self, session: ap.Session, batch: ap.ScoringBatch, request: ap.Request) -> Any:
        raise FirstForwardError


class AllOrNothing:
    """A method that makes two evaluations."""

    estimand = "v(N) - v(0)"
    requires: frozenset[ap.Capability] = frozenset()

    def run(self, game: ap.Game, *, budget: int | None, rng: torch.Generator) -> ap.Estimate:
        everything = torch.ones(1, game.n_features, dtype=torch.bool)
        game.values(torch.cat([everything, ~everything]))
        raise AssertionError("the first forward pass was not stopped")


def operations(prompt: Callable[[], object]) -> int:
    """Number of bytecode instructions of this package from the prompt to the first forward pass."""
    count = 0

    def step(frame: FrameType, event: str, _: object) -> Any:
        nonlocal count
        count += event == "opcode"
        return step

    def enter(frame: FrameType, event: str, _: object) -> Any:
        if "apportion" not in frame.f_globals.get("__name__", ""):
            return None
        frame.f_trace_opcodes, frame.f_trace_lines = True, False
        return step

    with ap.Explainer("echo://", backend=LongContext(), plugins=[StopAtFirstForward()], progress=False) as explainer:
        before = sys.gettrace()
        sys.settrace(enter)
        try:
            explainer.attribute(prompt(), " x", method=AllOrNothing())
        except ap.PluginError as error:
            assert isinstance(error.__cause__, FirstForwardError)
            return count
        finally:
            sys.settrace(before)
    raise AssertionError("nothing was scored")


def text(words: int) -> str:
    """Sentences of 8 words, in paragraphs of 5 sentences; some words repeat."""
    ends = {7: ". ", 39: ".\n\n"}
    return "".join(f"w{i % 97 * i % 89}{ends.get(i % 40, ends[7] if i % 8 == 7 else ' ')}" for i in range(words))


def turns(count: int, words: int) -> list[dict[str, str]]:
    return [{"role": ("user", "assistant")[i % 2], "content": text(words)} for i in range(count)]


def slots(count: int) -> str:
    return " ".join(f"{{s{i}}}" for i in range(count))


def named(count: int, value: object) -> dict[str, object]:
    return {f"s{i}": value for i in range(count)}


LONG: dict[str, Callable[[int], object]] = {
    "words": lambda n: ap.Text(text(n)),
    "words that are kept": lambda n: ap.Text(text(n), keep=sorted({*text(n // 2).split()})),
    "the same word": lambda n: ap.Text("the " * n),
    "sentences": lambda n: ap.Text(text(8 * n), by="sentences"),
    "paragraphs": lambda n: ap.Text("\n\n".join(["One two."] * n), by="paragraphs"),
    "tokens": lambda n: ap.Text(text(n // 2), by="tokens"),
    "pieces of a function": lambda n: ap.Text(text(n), by=str.split),
    "words of one message": lambda n: ap.Chat(turns(1, n), by="words", chat_template=chats.CHATML),
    "words of many messages": lambda n: ap.Chat(turns(n // 4, 4), by="words", chat_template=chats.CHATML),
    "words and a tool": lambda n: ap.Chat(
        turns(1, n), by="words", tools=[{"name": "clock"}], chat_template=chats.TOOLS
    ),
    "sentences of messages": lambda n: ap.Chat(turns(n // 4, 32), by="sentences", chat_template=chats.CHATML),
    "roles": lambda n: ap.Chat(turns(n, 1), by="roles", chat_template=chats.CHATML, baseline=""),
    "documents": lambda n: ap.Documents("Who?", [f"d{i}" for i in range(n)]),
    "documents that are kept": lambda n: ap.Documents(
        "Who?", {f"n{i}": "d" for i in range(n)}, keep=[f"n{i}" for i in range(n // 2)]
    ),
    "words of documents": lambda n: ap.Documents("Who?", [text(4)] * (n // 4), by="words"),
    "slots": lambda n: ap.Template(slots(n), named(n, "a"), named(n, "b")),
    "slots in groups": lambda n: ap.Template(
        slots(n), named(n, "a"), groups=[(f"s{i}", f"s{i + 1}") for i in range(0, n, 2)]
    ),
    "alternatives of slots": lambda n: ap.Template(slots(n), named(n, "a"), named(n, ["b", "c"]), draws=2),
    "slots by position": lambda n: ap.Template("{} " * n, ["a"] * n, ["b"] * n),
}


@pytest.mark.parametrize("name", LONG)
def test_work_before_the_first_forward_grows_with_the_prompt(name: str) -> None:
    prompt = LONG[name]
    operations(lambda: prompt(8))  # imports
    few, many = (operations(lambda n=n: prompt(n)) for n in (400, 1600))  # type: ignore[misc]
    assert many < 4.5 * few


def test_the_splitter_reads_a_text_once() -> None:
    read: list[int] = []

    def split(text: str) -> list[str]:
        read.append(len(text))
        return text.split()

    for prompt in (ap.Text(text(500), by=split), ap.Chat(turns(20, 25), by=split, chat_template=chats.CHATML)):
        read.clear()
        operations(lambda prompt=prompt: prompt)  # type: ignore[misc]
        whole = prompt.text if isinstance(prompt, ap.Text) else "".join(str(m["content"]) for m in prompt.messages)
        assert sum(read) == len(whole)
