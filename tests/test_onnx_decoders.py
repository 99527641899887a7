"""Decoders that others exported: recognised, tried, cut, and scored as they are."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper

import apportion as ap
from apportion.protocols.row import Row
from apportion.testing import reference, tiny
from apportion_backends.onnxruntime.backend import OnnxRuntimeBackend
from apportion_backends.onnxruntime.decoders import opening
from apportion_backends.onnxruntime.export.trace import quiet_exporter
from exports import Exports, genai_model


def opened(path: Path, **options: Any) -> Any:
    return OnnxRuntimeBackend().load(ap.ModelSpec(str(path)), **options)


def test_a_folder_of_optimum_needs_no_name_of_a_backend(exports: Exports) -> None:
    """Shapley values of the file are those of the model in PyTorch."""
    for family in ("llama", "gpt2"):
        with ap.Explainer(str(exports.optimum(family)), progress=False) as ours:
            found = ours.attribute("one two three", " x", method="shapley")
            written = ours.attribute("one two three", method="ablation").target_text
        with ap.Explainer((tiny.model(family, torch.float32), tiny.tokenizer()), progress=False) as theirs:
            expected = theirs.attribute("one two three", " x", method="shapley")
            assert written == theirs.attribute("one two three", method="ablation").target_text
        np.testing.assert_allclose(found.values, expected.values, atol=1e-4)
        assert found.provenance.backend == "onnxruntime" and not ours.session.info.notes


def test_the_file_can_be_named_itself(exports: Exports, tmp_path: Path) -> None:
    """Also in the folder ``onnx`` of a repository, where the tokenizer is one level up."""
    folder = exports.optimum("llama")
    assert opened(folder / "model.onnx").info.context_length == 512
    shutil.copytree(folder, tmp_path / "repository", ignore=shutil.ignore_patterns("model.onnx*"))
    (tmp_path / "repository" / "onnx").mkdir()
    for file in folder.glob("model.onnx*"):
        shutil.copy(file, tmp_path / "repository" / "onnx")
    for path in (tmp_path / "repository", tmp_path / "repository" / "onnx" / "model.onnx"):
        assert opened(path).fingerprint() == opened(folder).fingerprint()


def test_heads_compute_only_what_is_scored(exports: Exports, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a head that cannot be cut, the numbers are the same, and results say so."""
    rows = tuple(Row(tuple(range(1, n)), (5, 6, 7)) for n in (3, 9, 30))
    for folder in (exports.optimum("llama"), exports.genai()):
        session = opened(folder)
        found, memory = session.log_probs(ap.ScoringBatch(rows)), session.row_bytes(0, 100, 3)
        assert session._cut and not session.info.notes
        with monkeypatch.context() as patch:
            patch.setattr(opening, "with_cut_logits", lambda _: None)
            whole = opened(folder)
        assert torch.allclose(found, whole.log_probs(ap.ScoringBatch(rows)), atol=1e-5)
        assert whole.row_bytes(0, 100, 3) > memory
        assert "computes the logits of all positions" in " ".join(whole.info.notes)


def test_a_genai_folder_is_scored_without_its_runtime(exports: Exports) -> None:
    """GroupQueryAttention reads one row at a time after a prefix; the plan knows."""
    session = opened(exports.genai())
    assert session.layout.prefix_sharing and session.layout.prefix_rows == 1
    rows = [Row((*range(1, 60), last), (7, 8)) for last in range(70, 75)]
    for prefix in (0, 59):
        for row, ours in zip(rows, session.log_probs(ap.ScoringBatch(tuple(rows), prefix)), strict=True):
            expected = reference.log_probs(genai_model(), row.prompt, row.target)
            assert float((ours.double() - expected).abs().max()) < 1e-4
    with ap.Explainer(str(exports.genai()), progress=False) as ours:
        found = ours.attribute("one two three", " x", method="shapley")
    with ap.Explainer((genai_model(), tiny.tokenizer()), progress=False) as theirs:
        expected = theirs.attribute("one two three", " x", method="shapley")
    np.testing.assert_allclose(found.values, expected.values, atol=1e-4)


def test_4_bit_weights_run_as_they_are_with_a_note(exports: Exports) -> None:
    with ap.Explainer(str(exports.genai("int4")), progress=False) as explainer:
        result = explainer.attribute("one two three", " x", method="shapley")
        assert explainer.session.info.dtype == "int4"
    assert any("4-bit weights" in note for note in result.provenance.notes)


def test_half_precision_runs_as_it_is_with_a_note(exports: Exports) -> None:
    session = opened(exports.optimum("llama", torch.float16))
    assert session.info.dtype == "float16" and any("fp16" in note for note in session.info.notes)
    (found,) = session.log_probs(ap.ScoringBatch.of([(1, 2, 3, 4)], (5, 6)))
    expected = reference.log_probs(tiny.model("llama", torch.float32), (1, 2, 3, 4), (5, 6))
    assert float((found.double() - expected).abs().max()) < 0.03


def test_a_model_that_sees_later_tokens_is_refused(exports: Exports, tmp_path: Path) -> None:
    """As ``quantize_dynamic`` makes them: one scale for all tokens of a call."""
    from onnxruntime.quantization import QuantType, quantize_dynamic

    folder = tmp_path / "dynamic"
    shutil.copytree(exports.optimum("gpt2"), folder, ignore=shutil.ignore_patterns("model.onnx*"))
    quantize_dynamic(exports.optimum("gpt2") / "model.onnx", folder / "model.onnx", weight_type=QuantType.QUInt8)
    with pytest.raises(ap.ModelError, match="its logits depend on later tokens.*quantize_dynamic"):
        opened(folder)


class Stretched(torch.nn.Module):
    """A decoder without past, whose scores depend on the length of the longest row, as dynamic rotary embeddings do."""

    def __init__(self, longest: int) -> None:
        super().__init__()
        self.model, self.longest = tiny.model("gpt2", torch.float32), longest

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        places = torch.ones_like(input_ids).cumsum(-1) - 1
        logits = self.model(input_ids, attention_mask=attention_mask, position_ids=places, use_cache=False).logits
        tokens = torch.ones_like(input_ids).sum(-1)[:, None, None]
        return torch.where(tokens > self.longest, 2 * logits, logits)


def exported(module: torch.nn.Module, folder: Path) -> Path:
    folder.mkdir()
    ids = torch.ones(2, 7, dtype=torch.long)
    some = torch.export.Dim.AUTO
    with torch.no_grad(), quiet_exporter():
        program = torch.onnx.export(
            module.eval(), (ids, ids.clone()), dynamo=True, dynamic_shapes=({0: some, 1: some},) * 2, verbose=False,
            input_names=["input_ids", "attention_mask"], output_names=["logits"],
        )  # fmt: skip
    program.save(folder / "model.onnx")
    tiny.tokenizer().save_pretrained(folder)
    return folder


def test_batches_that_change_with_their_longest_row_are_given_up(tmp_path: Path) -> None:
    """What opening cannot show is seen in the first batch with longer rows; that batch is scored again, row by row."""
    session = opened(exported(Stretched(30), tmp_path / "stretched"))
    assert session.layout.padding
    short, long = Row((1, 2, 3), (5, 6)), Row(tuple(range(1, 60)), (5, 6))
    (alone,) = session.log_probs(ap.ScoringBatch((short,)))
    together = session.log_probs(ap.ScoringBatch((short, long)))
    assert torch.equal(together[0], alone)
    assert not session.layout.padding and session.layout.batch_tokens == 1
    assert any("other numbers in a batch with a row of 60 tokens" in note for note in session.info.notes)
    expected = reference.log_probs(tiny.model("gpt2", torch.float32), short.prompt, short.target)
    assert float((alone.double() - expected).abs().max()) < 1e-4


def graph(path: Path, inputs: dict[str, int], outputs: dict[str, int], nodes: list[Any]) -> Path:
    """A small graph; inputs and outputs with their types."""
    infos = [[helper.make_tensor_value_info(n, t, ["B", "S"]) for n, t in part.items()] for part in (inputs, outputs)]
    model = helper.make_model(helper.make_graph(nodes, "graph", *infos), opset_imports=[helper.make_opsetid("", 20)])
    model.ir_version = 10
    path.parent.mkdir(exist_ok=True)
    onnx.save(model, path)
    tiny.tokenizer().save_pretrained(path.parent)
    return path


def test_other_graphs_are_refused(tmp_path: Path, exports: Exports) -> None:
    long, real = TensorProto.INT64, TensorProto.FLOAT
    cast = helper.make_node("Cast", ["input_ids"], ["logits"], to=real)
    both = helper.make_node("Cast", ["pixel_values"], ["logits"], to=real)
    cases = (
        (graph(tmp_path / "a" / "model.onnx", {"x": real}, {"logits": real},
               [helper.make_node("Abs", ["x"], ["logits"])]), "is not a decoder: it has no input 'input_ids'"),
        (graph(tmp_path / "b" / "model.onnx", {"input_ids": long}, {"scores": real},
               [helper.make_node("Cast", ["input_ids"], ["scores"], to=real)]), "it has no output 'logits'"),
        (graph(tmp_path / "c" / "model.onnx", {"input_ids": long, "pixel_values": real}, {"logits": real}, [both]),
         "inputs that text alone does not give: pixel_values"),
        (graph(tmp_path / "d" / "model.onnx", {"input_ids": long}, {"logits": real}, [cast]), "size of its vocabulary"),
    )  # fmt: skip
    for path, message in cases:
        with pytest.raises(ap.ModelError, match=message):
            opened(path)


def test_damaged_files_are_refused(exports: Exports, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(exports.genai(), tmp_path / "genai"))
    content = (folder / "model.onnx").read_bytes()
    (folder / "model.onnx").write_bytes(content[: len(content) // 2])
    with pytest.raises(ap.ModelError, match=r"cannot load .*damaged or incomplete"):
        opened(folder)
    (folder / "model.onnx").write_bytes(content)
    data = (folder / "model.onnx.data").read_bytes()
    (folder / "model.onnx.data").write_bytes(data[:-2000])
    with pytest.raises(ap.ModelError, match="cannot load|cannot be scored"):
        opened(folder)
    (folder / "model.onnx.data").write_bytes(data)
    settings = json.loads((folder / "genai_config.json").read_text())
    del settings["model"]["decoder"]["head_size"]
    del settings["model"]["decoder"]["hidden_size"]
    (folder / "genai_config.json").write_text(json.dumps(settings))
    with pytest.raises(ap.ModelError, match="states the number and size of its key heads"):
        opened(folder)


def test_which_of_several_files_is_asked(exports: Exports, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(exports.genai(), tmp_path / "two"))
    (folder / "genai_config.json").unlink()
    (folder / "model.onnx").rename(folder / "left.onnx")
    shutil.copy(folder / "left.onnx", folder / "right.onnx")
    with pytest.raises(ap.ModelError, match="holds 2 .onnx files: left.onnx, right.onnx. Name the file"):
        opened(folder)


def test_a_tokenizer_of_another_model_is_refused(exports: Exports) -> None:
    other = tiny.tokenizer().__class__.from_pretrained(exports.genai())
    other.add_tokens(["one more", "another", "a third", "a fourth"])
    with pytest.raises(ap.ModelError, match="is of another model: it has token ids up to 261"):
        ap.Explainer(str(exports.genai()), tokenizer=other)


def test_options_of_exports_are_refused(exports: Exports) -> None:
    with pytest.raises(ap.InputError, match="precision='int8' is of exports"):
        opened(exports.genai(), precision="int8")
