"""Exports: numbers in every shape, 8-bit numbers, files that are not what they should be, and no PyTorch on the way."""

from __future__ import annotations

import copy
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import apportion as ap
from apportion.cli import main
from apportion.models.spec import model_spec
from apportion.protocols.row import Row
from apportion.results.seal import SEAL, seal_of
from apportion.scoring.plan import plan
from apportion.scoring.prefix_tree import in_tree_order, minimum_tokens
from apportion.testing import reference, tiny
from apportion_backends.onnxruntime.backend import OnnxRuntimeBackend
from apportion_backends.onnxruntime.manifest import MANIFEST, read_manifest
from apportion_backends.torch.backend import TorchBackend
from exports import Exports

NATS = 1e-4


def opened(folder: Path, **options: Any) -> Any:
    return OnnxRuntimeBackend().load(ap.ModelSpec(str(folder)), **options)


def tokens(count: int, seed: int = 0) -> tuple[int, ...]:
    draw = torch.Generator().manual_seed(seed)
    return tuple(torch.randint(0, 256, (count,), generator=draw).tolist())


def check(session: Any, rows: list[Row], family: str = "llama", *, packed: bool = True, prefix: int = 0) -> None:
    """Compare rows with one-row forward passes of the model."""
    rows = [rows[i] for i in in_tree_order(rows)]
    found = session.log_probs(ap.ScoringBatch(tuple(rows), prefix, packed))
    for row, ours in zip(rows, found, strict=True):
        expected = reference.log_probs(tiny.model(family, torch.float32), row.prompt, row.target)
        worst = float((ours[: len(row.target)].double() - expected).abs().max())
        assert worst <= NATS, f"{len(row.prompt)} tokens are off by {worst:.2g} nats"


SHAPES = {
    "one row": [Row(tokens(9), tokens(3, 1))],
    "one token": [Row((7,), (1,))],
    "one prefix token": [Row((7, i), tokens(3, 1)) for i in range(4)],
    "one target token": [Row((*tokens(20), i), (5,)) for i in range(3)],
    "257 rows": [Row((*tokens(6), i, i // 7), tokens(2, 1)) for i in range(257)],
    "several targets": [Row(tokens(12), tokens(n, n)) for n in (1, 4, 9)],
    "rows that begin one another": [Row(tokens(30)[:n], tokens(2, 1)) for n in (1, 2, 15, 16, 17, 29, 30)],
    "2 to 1,500 tokens": [Row(tokens(1500)[:n], tokens(3, 1)) for n in (2, 40, 600, 1500)],
    "long rows apart": [Row(tokens(900, seed), tokens(2, 9)) for seed in (1, 2)],
    "a long beginning": [Row(tokens(700) + tokens(n + 1, n), tokens(2, 1)) for n in range(5)],
}


@pytest.mark.parametrize("shape", SHAPES)
def test_shapes_that_were_never_traced(exports: Exports, shape: str) -> None:
    session = opened(exports("llama"))
    check(session, SHAPES[shape])
    check(session, SHAPES["one prefix token"])
    check(session, SHAPES[shape])


@pytest.mark.parametrize("family", ["gemma3", "gpt2"])
def test_windows_and_learned_positions_beyond_one_call(exports: Exports, family: str) -> None:
    """A window of 4 tokens, with long beginnings that are read before."""
    session = opened(exports(family))
    rows = [Row(tokens(300) + tokens(n + 1, n), tokens(3, 1)) for n in range(4)]
    check(session, rows, family)
    check(session, rows, family, packed=False, prefix=300)


def test_the_tokens_that_are_charged_are_those_of_the_prefix_tree(exports: Exports) -> None:
    session = opened(exports("llama"))
    rows = SHAPES["257 rows"]
    made = plan(rows, session.layout, session.row_bytes, session.info.memory_budget)
    assert {batch.packed for batch in made.batches} == {True}
    assert made.forwarded_tokens == minimum_tokens(rows)


@pytest.mark.parametrize(
    "arguments", [{"method": "ablation"}, {"method": "shapley"}, {"method": "kernel_shap", "budget": 40}]
)
def test_attributions_are_those_of_pytorch(exports: Exports, arguments: dict[str, Any]) -> None:
    prompt = ap.Text("seven small words of a short prompt", by="words")
    with ap.Explainer(str(exports("llama")), progress=False) as ours:
        found = ours.attribute(prompt, " x", seed=1, **arguments)
    with ap.Explainer((tiny.model("llama", torch.float32), tiny.tokenizer()), progress=False) as theirs:
        expected = theirs.attribute(prompt, " x", seed=1, **arguments)
    np.testing.assert_allclose(found.values, expected.values, atol=NATS)
    assert found.provenance.backend == "onnxruntime"


def test_target_functions_get_logits(exports: Exports) -> None:
    with ap.Explainer(str(exports("gpt2")), progress=False) as ours:
        found = ours.attribute("one two", " x", target_fn="kl_divergence", method="shapley")
    with ap.Explainer((tiny.model("gpt2", torch.float32), tiny.tokenizer()), progress=False) as theirs:
        expected = theirs.attribute("one two", " x", target_fn="kl_divergence", method="shapley")
    np.testing.assert_allclose(found.values, expected.values, atol=NATS)


def test_a_written_target_is_that_of_pytorch(exports: Exports) -> None:
    with ap.Explainer(str(exports("llama")), progress=False) as ours:
        found = ours.attribute("one two three", generate={"max_new_tokens": 5}, method="ablation")
        for options, message in (
            ({"do_sample": True}, "generates greedily; generate= cannot have do_sample=True"),
            ({"top_k": 5}, "generates greedily, so generate= has no option 'top_k'"),
            ({"max_new_tokens": 0}, "max_new_tokens=0 must be a whole number"),
        ):
            with pytest.raises(ap.InputError, match=message):
                ours.attribute("one two three", generate=options, method="ablation")
    with ap.Explainer((tiny.model("llama", torch.float32), tiny.tokenizer()), progress=False) as theirs:
        expected = theirs.attribute("one two three", generate={"max_new_tokens": 5}, method="ablation")
    assert found.target_text == expected.target_text


def test_8_bit_scores_do_not_depend_on_neighbours(exports: Exports) -> None:
    session = opened(exports("llama", "int8"))
    rows = [Row(tokens(n, n), tokens(3, 1)) for n in range(1, 40)]
    together = session.log_probs(ap.ScoringBatch(tuple(rows), 0, packed=True))
    for row, ours in zip(rows, together, strict=True):
        session.release()
        alone = session.log_probs(ap.ScoringBatch((row,), 0, packed=True))[0]
        assert float((ours - alone).abs().max()) <= 1e-5


def test_the_fidelity_of_8_bits_is_measured(exports: Exports) -> None:
    folder = exports("llama", "int8")
    manifest = read_manifest(folder)
    assert manifest.fidelity["prompts"] == 40 and manifest.fidelity["spearman"] > 0.98
    assert 0 < manifest.largest_difference < 0.1 and manifest.versions["onnxruntime"]
    with ap.Explainer(str(folder), progress=False) as explainer:
        result = explainer.attribute("one two three", " x", method="shapley")
    assert result.provenance.dtype == "int8"
    assert any("rank correlation of" in note for note in result.provenance.notes)
    assert sum(path.stat().st_size for path in folder.glob("*.data")) < sum(
        path.stat().st_size for path in exports("llama").glob("*.data")
    )


@pytest.fixture
def copied(exports: Exports, tmp_path: Path) -> Path:
    return Path(shutil.copytree(exports("llama"), tmp_path / "export"))


def changed(copied: Path, *, sealed: bool = True, **entries: Any) -> None:
    manifest = {**json.loads((copied / MANIFEST).read_text()), **entries}
    if sealed:
        manifest[SEAL] = seal_of(manifest)
    (copied / MANIFEST).write_text(json.dumps(manifest))


def test_a_changed_file_is_refused(copied: Path) -> None:
    for name, damage, message in (
        ("model.onnx", lambda data: data[:-1] + bytes([data[-1] ^ 1]), "model.onnx .* its hash is another"),
        ("model.onnx.data", lambda data: data[:-5], r"model.onnx.data .* instead of .* incomplete"),
        ("tokenizer.json", lambda data: data + b" ", "tokenizer.json"),
    ):
        before = (copied / name).read_bytes()
        (copied / name).write_bytes(damage(before))
        with pytest.raises(ap.ModelError, match=message):
            opened(copied)
        (copied / name).write_bytes(before)
    (copied / "model.onnx.data").unlink()
    with pytest.raises(ap.ModelError, match=r"lacks its file model.onnx.data"):
        opened(copied)


def test_a_manifest_that_does_not_fit_is_refused(copied: Path) -> None:
    good = (copied / MANIFEST).read_text()
    data = json.loads(good)
    for entries, error, message in (
        ({"format": 99}, ap.ModelError, "has the format 99"),
        ({"sizes": 3}, ap.ModelError, "is damaged"),
        ({"more": 1}, ap.ModelError, "it should have other entries: .'more'."),
        ({"files": {}}, ap.ModelError, "its list of files"),
        ({"tokenizer": "another"}, ap.ModelError, "is of another model"),
        (
            {"checks": [{**data["checks"][0], "log_probs": [-1.0] * len(data["checks"][0]["log_probs"])}]},
            ap.BackendError,
            "gives other numbers here than where it was made",
        ),
    ):
        changed(copied, **entries)
        with pytest.raises(error, match=message):
            opened(copied)
        (copied / MANIFEST).write_text(good)
    for entries in ({"context_length": None}, {"precision": "int8"}, {"head": {**data["head"], "soft_cap": 0.1}}):
        changed(copied, sealed=False, **entries)
        with pytest.raises(ap.ModelError, match="is not the one that was written with the export"):
            opened(copied)
        (copied / MANIFEST).write_text(good)
    (copied / MANIFEST).write_text("[]")
    with pytest.raises(ap.ModelError, match="is damaged"):
        opened(copied)


def test_a_tokenizer_of_another_model_is_refused(exports: Exports) -> None:
    other = copy.deepcopy(tiny.tokenizer())
    other.add_tokens(["another"])
    with pytest.raises(ap.ModelError, match="tokenizer .* is of another model: its vocabulary is not the one"):
        ap.Explainer(str(exports("llama")), tokenizer=other)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"device": "cuda"}, "'cuda' is not in the installed ONNX Runtime .*pip install 'apportion.onnx-gpu.'"),
        ({"backend_options": {"provider": "directml"}}, "Install onnxruntime-directml in place of onnxruntime"),
        ({"backend_options": {"provider": "no-such"}}, "No execution provider is called 'no-such'. Available: cuda"),
        ({"device": "cuda", "backend_options": {"provider": "cpu"}}, "runs on 'cpu', and not on device='cuda'"),
        ({"dtype": "bfloat16"}, "has no dtype 'bfloat16' with the execution provider 'cpu'"),
        ({"backend_options": {"threads": 0}}, "threads=0 must be a whole number of at least 1"),
        ({"backend_options": {"precision": "int4"}}, "precision='int4' must be 'fp32' or 'int8'"),
        ({"backend_options": {"precision": "int8"}}, "has the precision 'fp32', not 'int8'"),
    ],
)
def test_what_is_missing_is_named(exports: Exports, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ap.ApportionError, match=message):
        ap.Explainer(str(exports("llama")), **{"backend": "onnxruntime", **options})


@pytest.mark.parametrize(
    ("family", "message"),
    [
        ("bloom", "its attention is code of its own|in a packed batch"),
        ("mamba", "cannot be exported"),
        ("mixtral", "it is a mixture of experts"),
        ("t5", "encoder–decoder"),
    ],
)
def test_architectures_that_cannot_be_exported_are_refused(family: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(ap.ModelError, match=message) as caught:
        ap.export((tiny.model(family, torch.float32), tiny.tokenizer()), tmp_path / "out")
    assert "backend='torch'" in str(caught.value)
    assert not [*tmp_path.iterdir()], "a refused export leaves nothing behind"


def test_methods_that_look_inside_name_another_backend(exports: Exports) -> None:
    with (
        ap.Explainer(str(exports("llama")), progress=False) as explainer,
        pytest.raises(ap.CapabilityError, match="gradients, .* Use backend='torch', if it opens the model"),
    ):
        explainer.attribute("one two", " x", method="saliency")


def test_a_folder_of_an_export_says_so_to_other_backends(exports: Exports, tmp_path: Path) -> None:
    for open_again in (
        lambda: ap.Explainer(str(exports("llama")), backend="torch"),
        lambda: ap.export(str(exports("llama")), tmp_path / "out"),
    ):
        with pytest.raises(ap.ModelError, match="holds an ONNX file .* Open it with backend='onnxruntime'"):
            open_again()
    with pytest.raises(ap.ModelError, match="the graph of an export by apportion. Give the folder"):
        opened(exports("llama") / "model.onnx")


def test_a_model_in_half_precision_is_exported_in_fp32_with_a_note(tmp_path: Path) -> None:
    ap.export((tiny.model("gpt2", torch.bfloat16), tiny.tokenizer()), tmp_path / "out")
    assert opened(tmp_path / "out").info.notes == ("the model has bfloat16 weights, and its export computes in fp32",)


def test_an_export_does_not_change_the_model(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Nor does one that is interrupted, which leaves nothing behind."""
    model = tiny.model("llama", torch.float32)
    session = TorchBackend().load(model_spec((model, tiny.tokenizer())))
    before = session.checksum(), model.config.to_dict(), model.config._attn_implementation

    for error in (KeyboardInterrupt(), RuntimeError("Unhandled FakeTensor: KeyboardInterrupt: <EMPTY MESSAGE>")):
        monkeypatch.setattr("torch.onnx.export", raising(error))
        with pytest.raises(KeyboardInterrupt):
            ap.export((model, tiny.tokenizer()), tmp_path / "out")
    assert (session.checksum(), model.config.to_dict(), model.config._attn_implementation) == before
    assert not [*tmp_path.iterdir()]


def raising(error: BaseException) -> Any:
    def fail(*_: object, **__: object) -> None:
        raise error

    return fail


def test_places_that_cannot_be_written_to_are_refused(tmp_path: Path, exports: Exports) -> None:
    pair = tiny.model("llama", torch.float32), tiny.tokenizer()
    (tmp_path / "file").write_text("")
    for model, out, message in (
        (pair, tmp_path, "is not empty"),
        (pair, tmp_path / "file", "is a file. Name a folder"),
        (pair, exports("llama"), "already holds an export"),
        (pair, "", "give the path"),
        (pair, tmp_path / "file" / "out", "Nothing can be written to"),
        ("no-such-folder/model", tmp_path / "out", "no-such-folder"),
    ):
        with pytest.raises(ap.ApportionError, match=message):
            ap.export(model, out)
    with pytest.raises(ap.InputError, match="precision='fp8' must be"):
        ap.export(pair, tmp_path / "out", precision="fp8")
    with pytest.raises(ap.BackendError, match=r"'torch' does not export models. Those that do: onnxruntime"):
        ap.export(pair, tmp_path / "out", backend="torch")
    with pytest.raises(ap.InputError, match="say=3 must be a function"):
        ap.export(pair, tmp_path / "out", say=3)


def test_a_named_model_is_exported_once(
    tiny_model_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("APPORTION_CACHE", str(tmp_path))
    values = []
    for told in (True, False):
        with ap.Explainer(str(tiny_model_dir), backend="onnxruntime", progress=False) as explainer:
            values.append(explainer.attribute("one two", " x", method="shapley").values)
        assert ("to ONNX once, into" in capfd.readouterr().err) == told
    np.testing.assert_array_equal(*values)
    (graph,) = (tmp_path / "onnx").glob("*-fp32/model.onnx")
    graph.write_bytes(graph.read_bytes()[:-3])
    with pytest.warns(RuntimeWarning, match="The export in the cache is made again: .*model.onnx"):
        OnnxRuntimeBackend().load(model_spec(str(tiny_model_dir)))
    with pytest.raises(ap.InputError, match="opens folders and names, and not model objects"):
        ap.Explainer((tiny.model(), tiny.tokenizer()), backend="onnxruntime")
    assert not OnnxRuntimeBackend().claims(model_spec(str(tiny_model_dir))), "'auto' would export without being asked"


WITHOUT_TORCH = """
import sys

class Blocked:
    def find_spec(self, name, *_):
        if name.split(".")[0] in ("torch", "transformers"):
            raise ImportError(f"{name} is blocked")

sys.meta_path.insert(0, Blocked())
from pathlib import Path
from apportion.protocols.row import Row
from apportion.results.seal import SEAL, seal_of
from apportion_backends.onnxruntime.manifest import read_manifest
from apportion_backends.onnxruntime.packed_graph import PackedGraph
from apportion_backends.onnxruntime.providers import choose_provider

folder = Path(sys.argv[1])
manifest = read_manifest(folder)
manifest.check_sizes(folder)
manifest.check_hashes(folder)
graph = PackedGraph(folder, manifest.sizes, manifest.head, choose_provider(None, None), 1)
rows = [Row((1, 2, 3), (4, 5)), Row((1, 2, 6), (4, 5))]
print(*graph.log_probs(rows).sum(1))
assert not {"torch", "transformers"} & {name.split(".")[0] for name in sys.modules}
"""


def test_a_graph_is_scored_without_pytorch(exports: Exports) -> None:
    """The whole way from rows to scores: layout, graph and head need NumPy and ONNX Runtime."""
    command = [sys.executable, "-c", WITHOUT_TORCH, str(exports("llama"))]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    expected = [reference.log_probs(tiny.model("llama", torch.float32), (1, 2, last), (4, 5)).sum() for last in (3, 6)]
    np.testing.assert_allclose([float(one) for one in done.stdout.split()], expected, atol=NATS)


WITHOUT_MODELS = """
import sys

class Blocked:
    def find_spec(self, name, *_):
        if name == "transformers.modeling_utils" or ".modeling_" in name and name.startswith("transformers.models."):
            raise ImportError(f"{name} is blocked")

sys.meta_path.insert(0, Blocked())
import torch
import apportion as ap

def refuse(*_, **__):
    raise AssertionError("a module of PyTorch was called")

torch.nn.Module.__call__ = refuse
with ap.Explainer(sys.argv[1], progress=False) as explainer:
    print(*explainer.attribute("one two three", " x", method="shapley").values)
    print(explainer.attribute("one two three", method="ablation").target_text)
"""


def test_attributions_need_no_code_of_a_model(exports: Exports) -> None:
    """End to end: tokenizer, scores, generation and methods, with every model class and module of PyTorch blocked."""
    command = [sys.executable, "-c", WITHOUT_MODELS, str(exports("llama"))]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    with ap.Explainer(str(exports("llama")), progress=False) as explainer:
        expected = explainer.attribute("one two three", " x", method="shapley").values
    np.testing.assert_allclose([float(one) for one in done.stdout.splitlines()[0].split()], expected, atol=1e-6)


def test_the_command_line_exports(tiny_model_dir: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """A folder, a summary, the steps on stderr; then the folder is a model like any other."""
    folder = tmp_path / "out"
    assert main(["export", str(tiny_model_dir), "--out", str(folder), "--json", "--progress", "always"]) == 0
    ended = capfd.readouterr()
    summary = json.loads(ended.out)
    assert summary["folder"] == str(folder) and summary["largest_difference"] < NATS and summary["fidelity"] == {}
    assert [line.split(" s  ")[1].split(":")[0] for line in ended.err.splitlines()][::3] == [
        "Open the model in PyTorch",
        "Compare the graph with PyTorch",
    ]
    assert main(["attribute", "one two", "--target", " x", "--model", str(folder), "--json"]) == 0
    assert json.loads(capfd.readouterr().out)["provenance"]["backend"] == "onnxruntime"
    for arguments, message in (
        (["--out", str(folder)], "already holds an export"),
        (["--out", str(tmp_path / "a"), "--precision", "int4"], "must be 'fp32' or 'int8'"),
        (["--out", str(tmp_path / "a"), "--backend", "torch"], "does not export models"),
        ([], "Missing option '--out'"),
    ):
        assert main(["export", str(tiny_model_dir), *arguments]) != 0
        assert message in " ".join(capfd.readouterr().err.split())
