"""A model from files is the one in the files: what they lack or leave out is an error or a note, never a surprise."""

from __future__ import annotations

import copy
import gc
import json
import logging
import os
import re
import shutil
import subprocess
import sys
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers as tf
from safetensors.torch import load_file, save_file
from transformers.utils import import_utils

import apportion as ap
from apportion.testing import tiny
from apportion_backends.torch import remembered
from apportion_backends.torch.probe import probe

Weights = dict[str, torch.Tensor]


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("APPORTION_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def save(tmp_path: Path) -> Callable[..., Path]:
    """Saves a model with its tokenizer, and changes the files afterwards."""

    def save(
        model: tf.PreTrainedModel | None = None,
        change: Callable[[Weights], Weights] = lambda weights: weights,
        name: str = "model",
        **config: object,
    ) -> Path:
        folder = tmp_path / name
        (tiny.model(dtype=torch.float32) if model is None else model).save_pretrained(folder)
        tiny.tokenizer().save_pretrained(folder)
        weights = change(load_file(folder / "model.safetensors"))
        save_file(weights, folder / "model.safetensors", {"format": "pt"})
        described = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps(described | config))
        return folder

    return save


@pytest.fixture
def reported() -> Iterator[list[str]]:
    """What transformers logs about loaded weights; the logger of some versions keeps it from pytest."""
    found: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: found.append(record.getMessage())  # type: ignore[method-assign]
    logger = logging.getLogger("transformers.modeling_utils")
    logger.addHandler(handler)
    yield found
    logger.removeHandler(handler)


def explained(model: object, **options: Any) -> ap.Attribution:
    with ap.Explainer(model, progress=False, **options) as explainer:
        return explainer.attribute("one two three", " x", method="ablation")


def refusal(model: object, **options: Any) -> str:
    with pytest.raises(ap.ModelError) as caught:
        ap.Explainer(model, **options)
    return str(caught.value)


def prefixed(prefix: str) -> Callable[[Weights], Weights]:
    return lambda weights: {prefix + name: weight for name, weight in weights.items()}


def without(*parts: str) -> Callable[[Weights], Weights]:
    return lambda weights: {name: weight for name, weight in weights.items() if not any(part in name for part in parts)}


def grown(name: str) -> Callable[[Weights], Weights]:
    """One more row in this weight."""
    return lambda weights: weights | {name: torch.cat([weights[name], weights[name][:1]])}


def with_adapter(weights: Weights) -> Weights:
    name = "model.layers.0.self_attn.q_proj.lora_{}.default.weight"
    return weights | {name.format("A"): torch.ones(2, 32), name.format("B"): torch.ones(32, 2)}


def classifier() -> tf.PreTrainedModel:
    return tf.LlamaForSequenceClassification(tiny.config("llama"))


def headless() -> tf.PreTrainedModel:
    return tf.LlamaModel(tiny.config("llama"))


INCOMPLETE: dict[str, tuple[dict[str, Any], str, str]] = {
    "classifier": (
        {"model": classifier},
        r"lacks 1 of the 21 weights of LlamaForCausalLM \(lm_head.weight\), which would be filled with random numbers"
        r".*saved from LlamaForSequenceClassification.*score.weight would be left out.*saved from LlamaForCausalLM",
        "random numbers fill 1 of 21 weights that the checkpoint lacks: lm_head.weight",
    ),
    "base model": (
        {"model": headless},
        r"lacks 1 of the 21 weights.*\(lm_head.weight\).*saved from LlamaModel, so its output layer is another one, or "
        "none",
        "random numbers fill 1 of 21 weights that the checkpoint lacks: lm_head.weight",
    ),
    "layers": (
        {"num_hidden_layers": 11},
        r"lacks 81 of the 102 weights of LlamaForCausalLM \(model.layers.2.input_layernorm.weight, .* and 77 more\)"
        ".*config.json is that of another model, or weights were lost",
        "random numbers fill 81 of 102 weights that the checkpoint lacks: model.layers.2.input_layernorm.weight, ",
    ),
    "one weight": (
        {"change": without("layers.1.mlp.up_proj")},
        r"lacks 1 of the 21 weights of LlamaForCausalLM \(model.layers.1.mlp.up_proj.weight\)",
        "random numbers fill 1 of 21 weights that the checkpoint lacks: model.layers.1.mlp.up_proj.weight",
    ),
    "shape": (
        {"change": grown("lm_head.weight")},
        r"has 1 of the 21 weights .* in another shape \(lm_head.weight: 261 × 32 instead of 260 × 32\), which would be",
        "fill 1 of 21 weights that have another shape in the checkpoint: lm_head.weight: 261 × 32 instead of 260 × 32",
    ),
    "both": (
        {"change": lambda weights: grown("lm_head.weight")(without("model.norm")(weights))},
        r"lacks 1 of the 21 .*\(model.norm.weight\) and has 1 of the 21 weights .* another shape \(lm_head.weight",
        "random numbers fill 1 of 21 weights that the checkpoint lacks: model.norm.weight",
    ),
    "prefix": (
        {"change": prefixed("module.")},
        r"lacks 21 of the 21 weights .*Names in the checkpoint begin with 'module\.', as torch.nn.DataParallel writes",
        "random numbers fill 21 of 21 weights that the checkpoint lacks: lm_head.weight, ",
    ),
    "prefix of a base model": (
        {"model": headless, "change": prefixed("_orig_mod.")},
        r"Names in the checkpoint begin with '_orig_mod\.', as torch.compile writes",
        "random numbers fill 21 of 21 weights",
    ),
    "unknown prefix": (
        {"change": prefixed("policy.")},
        r"Names in the checkpoint begin with 'policy\.', as another program writes",
        "random numbers fill 21 of 21 weights",
    ),
    "adapter": (
        {"change": with_adapter},
        r"has weights of an adapter that LlamaForCausalLM would leave out. .*lora_A.* are of an adapter. Merge it",
        r"the checkpoint has weights that LlamaForCausalLM leaves out (2): model.layers.0.self_attn.q_proj.lora_A",
    ),
}


@pytest.mark.parametrize("case", INCOMPLETE)
@pytest.mark.parametrize("backend", ["auto", "triton"])
def test_a_checkpoint_that_is_not_the_model_is_refused(
    case: str, backend: str, save: Callable[..., Path], reported: list[str]
) -> None:
    if backend == "triton":
        pytest.importorskip("triton", reason="triton is not installed")
    changes, message, note = INCOMPLETE[case]
    folder = save(**{name: value() if name == "model" else value for name, value in changes.items()})
    state = torch.get_rng_state()
    said = refusal(str(folder), backend=backend)
    assert re.search(message, said), said
    assert said.startswith(f"The checkpoint of {str(folder)!r} ") and "allow_missing=True (--allow-missing" in said
    first = explained(str(folder), backend=backend, allow_missing=True)
    torch.rand(1)
    second = explained(str(folder), backend=backend, allow_missing=True)
    np.testing.assert_array_equal(first.values, second.values)
    assert any(note[1:] in said for said in first.provenance.notes), first.provenance.notes
    torch.set_rng_state(state)
    explained(str(folder), backend=backend, allow_missing=True)
    assert torch.equal(torch.get_rng_state(), state), "the caller's random numbers"
    assert not reported, "said by the error and the notes"


def test_what_drops_a_prefix_is_in_the_message(save: Callable[..., Path]) -> None:
    whole = explained(str(save(name="whole")))
    said = refusal(str(save(change=prefixed("module."))))
    call = re.search(r"Explainer\((ModelSpec\(.*?\}\))\)", said)
    assert call, said
    found = explained(eval(call[1], {"ModelSpec": ap.ModelSpec}))
    np.testing.assert_array_equal(found.values, whole.values)
    assert found.provenance.notes == ()


@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_every_architecture_is_complete(family: str, save: Callable[..., Path]) -> None:
    """Tied weights and buffers that are not saved are no gaps."""
    folder = save(tiny.model(family, torch.float32))
    with ap.Explainer(str(folder)) as explainer:
        assert not any("checkpoint" in note for note in explainer.session.info.notes)


def test_a_tied_head_is_not_missing(save: Callable[..., Path]) -> None:
    base, whole = tf.GPT2Model(tiny.config("gpt2")), tf.GPT2LMHeadModel(tiny.config("gpt2"))
    whole.transformer.load_state_dict(base.state_dict())
    whole.tie_weights()
    found = explained(str(save(base)))
    np.testing.assert_allclose(found.values, explained((whole.eval(), tiny.tokenizer())).values, atol=1e-5)
    assert found.provenance.notes == ()


def test_what_a_class_can_do_without_is_not_missing(save: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
    folder = save(change=without("lm_head"))
    monkeypatch.setattr(tf.LlamaForCausalLM, "_keys_to_ignore_on_load_missing", ["lm_head"])
    assert explained(str(folder)).provenance.notes == ()


@pytest.mark.parametrize(
    ("model", "changes", "note"),
    [
        (
            lambda: tf.GPT2ForSequenceClassification(tiny.config("gpt2")),
            {},
            "The checkpoint, saved from GPT2ForSequenceClassification, has weights that GPT2LMHeadModel leaves out (1)"
            ": score.weight.",
        ),
        (
            lambda: tiny.model(dtype=torch.float32),
            {"num_hidden_layers": 1},
            "The checkpoint has weights that LlamaForCausalLM leaves out (9): model.layers.1.input_layernorm.weight, "
            "model.layers.1.mlp.down_proj.weight, model.layers.1.mlp.gate_proj.weight, "
            "model.layers.1.mlp.up_proj.weight and 5 more.",
        ),
    ],
)
def test_what_is_left_out_is_noted(
    model: Callable[[], tf.PreTrainedModel], changes: dict[str, Any], note: str, save: Callable[..., Path]
) -> None:
    assert explained(str(save(model(), **changes))).provenance.notes == (note,)


def test_a_spec_allows_gaps_too(save: Callable[..., Path]) -> None:
    folder = str(save(change=without("lm_head")))
    by_spec, by_argument = explained(ap.ModelSpec(folder, allow_missing=True)), explained(folder, allow_missing=True)
    np.testing.assert_array_equal(by_spec.values, by_argument.values)
    assert by_spec.provenance.notes == by_argument.provenance.notes != ()
    assert refusal(ap.ModelSpec(folder, config={"ignore_mismatched_sizes": True}))
    with pytest.raises(ap.InputError, match="allow_missing='yes' must be True or False"):
        ap.Explainer(folder, allow_missing="yes")  # type: ignore[arg-type]


def test_filled_gaps_do_not_hide_a_complete_model(save: Callable[..., Path]) -> None:
    """Nothing random, nothing to say."""
    folder = str(save())
    allowed = explained(folder, allow_missing=True)
    np.testing.assert_array_equal(allowed.values, explained(folder).values)
    assert allowed.provenance.notes == ()


def test_the_report_of_transformers_is_shown_where_its_error_refers_to_it(
    save: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, reported: list[str]
) -> None:
    """As when weights cannot be converted while they are read."""

    def fail(*_: object) -> None:
        raise RuntimeError("see the above report!")

    monkeypatch.setattr(tf.PreTrainedModel, "eval", fail)  # called once the report is logged
    assert "see the above report!" in refusal(str(save(change=without("lm_head"))))
    assert re.search(r"LOAD REPORT.*lm_head.weight.*MISSING", reported[0], re.S)


# --- adapters --------------------------------------------------------------------------------------------------------


@pytest.fixture
def adapter(tmp_path: Path, save: Callable[..., Path]) -> Path:
    """What PEFT saves, and the model that it changes in another folder."""
    folder = tmp_path / "adapter"
    folder.mkdir()
    about = {"peft_type": "LORA", "base_model_name_or_path": str(save(name="base")), "r": 2}
    (folder / "adapter_config.json").write_text(json.dumps(about))
    save_file(prefixed("base_model.model.")(with_adapter({})), folder / "adapter_model.safetensors")
    tiny.tokenizer().save_pretrained(folder)
    return folder


@pytest.fixture
def peft(monkeypatch: pytest.MonkeyPatch) -> Callable[[bool], None]:
    """Says whether the package is installed."""
    return lambda there: monkeypatch.setattr(import_utils, "is_peft_available", lambda *_, **__: there)


def test_an_adapter_needs_peft(adapter: Path, peft: Callable[[bool], None]) -> None:
    peft(False)
    for options in ({}, {"allow_missing": True}):
        said = refusal(str(adapter), **options)
        assert said.startswith(
            f"{str(adapter)!r} is a PEFT adapter of {str(adapter.parent / 'base')!r}, and the package"
        )
        assert "pip install peft. Or merge" in said and "allow_missing" not in said


def test_an_adapter_beside_its_model_is_not_left_out_silently(adapter: Path, peft: Callable[[bool], None]) -> None:
    peft(False)
    shutil.copytree(adapter.parent / "base", adapter, dirs_exist_ok=True)
    assert re.search("holds a model and a PEFT adapter of it.*pass allow_missing=True", refusal(str(adapter)))
    found = explained(str(adapter), allow_missing=True)
    np.testing.assert_array_equal(found.values, explained(str(adapter.parent / "base")).values)
    assert found.provenance.notes == ("The adapter beside the model was left out, because peft is not installed.",)


@pytest.mark.parametrize("apart", [True, False])
def test_the_model_of_an_adapter_is_complete_too(
    apart: bool, adapter: Path, peft: Callable[[bool], None], save: Callable[..., Path]
) -> None:
    peft(True)
    base = save(name="base", change=without("lm_head"))
    if not apart:
        shutil.copytree(base, adapter, dirs_exist_ok=True)
    said = refusal(str(adapter))
    assert said.startswith(f"The checkpoint of {str(base if apart else adapter)!r} lacks 1 of the 21 weights"), said


@pytest.mark.parametrize(
    ("about", "message"),
    [
        ("{", "cannot be read: JSONDecodeError"),
        ("[]", "cannot be read: TypeError"),
        ("{}", "cannot be read: KeyError"),
        ('{"base_model_name_or_path": null}', "names no model: base_model_name_or_path is None"),
    ],
)
def test_a_damaged_adapter(about: str, message: str, adapter: Path) -> None:
    (adapter / "adapter_config.json").write_text(about)
    assert f"The adapter's configuration {adapter / 'adapter_config.json'} {message}" in refusal(str(adapter))


# --- folders and files that are no model -----------------------------------------------------------------------------


def without_files(pattern: str) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        for file in folder.glob(pattern):
            file.unlink()

    return change


def written(name: str, content: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).write_text(content) and None


def in_shards(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    tiny.model().save_pretrained(folder, max_shard_size="20KB")
    (folder / "model-00002-of-00012.safetensors").unlink()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (written("config.json", "{oops"), r"The config.json in '.*' is damaged: it is not JSON \(Expecting property"),
        (written("config.json", "[1]"), r"The config.json in '.*' is damaged: it holds a list instead of an object"),
        (in_shards, r"1 of the 12 files of weights in '.*' are missing: model-00002-of-00012.safetensors. Download"),
        (written("model.safetensors", "x"), "A weights file .* is damaged or incomplete"),
        (without_files("*.safetensors"), "cannot be loaded: Error no file named model.safetensors"),
        (without_files("token*"), r"holds a model but no tokenizer .*name another one with tokenizer=\.$"),
        (written("tokenizer.json", "{oops"), "The tokenizer in '.*' cannot be loaded: Expecting property name"),
        (without_files("*"), "has no config.json, so it is not a saved model; it holds nothing"),
    ],
)
@pytest.mark.parametrize("name", ["model", "model.gguf"])
def test_a_damaged_folder_says_what_is_wrong_with_it(
    name: str, change: Callable[[Path], None], message: str, tmp_path: Path
) -> None:
    folder = tmp_path / name
    tiny.model().save_pretrained(folder)
    tiny.tokenizer().save_pretrained(folder)
    change(folder)
    with pytest.raises(ap.ModelError, match=message) as caught:
        ap.Explainer(str(folder), progress=False)
    assert "hub id" not in str(caught.value), "another name would not help"


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("x.gguf", b"garbage" * 9, r"x.gguf is not a GGUF file: it begins with b'garb' instead of b'GGUF'"),
        ("x.gguf", b"", r"x.gguf is not a GGUF file: it is empty"),
        (
            "x.gguf",
            b"GGUF\x03\0\0\0" + b"\x05\0\0\0\0\0\0\0" * 2,
            r"x.gguf is damaged or incomplete: .*Download it again",
        ),
        ("model.bin", b"x", r"'.*model.bin' is a file and does not end in .gguf. Give the folder that it is in"),
    ],
)
def test_a_file_that_is_no_model_says_so_without_a_warning(
    name: str, content: bytes, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, recwarn: Any
) -> None:
    pytest.importorskip("gguf")
    monkeypatch.setenv("APPORTION_CACHE", str(tmp_path / "cache"))
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ap.ModelError, match=message):
        ap.Explainer(str(tmp_path / name), progress=False)
    assert not [warning for warning in recwarn if "takes longer" in str(warning.message)]


def test_a_hub_that_does_not_answer_is_asked_once(tmp_path: Path) -> None:
    """Instead of six times for each file, with a line for each time."""
    code = (
        "from apportion.errors import ModelError\nfrom apportion.models.spec import files_of\n"
        "try:\n    files_of('smollm')\nexcept ModelError as error:\n    print(error)"
    )
    known = {"HF_HUB_OFFLINE": "0", "HF_ENDPOINT": "http://127.0.0.1:9", "HF_HOME": str(tmp_path)}
    ended = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, **known}, capture_output=True, text=True, check=False
    )
    assert ended.stderr == ""
    assert "It cannot be downloaded now, because http://127.0.0.1:9 does not answer (" in ended.stdout
    assert "Did you mean 'smollm2'?" in ended.stdout


def test_a_hub_id_without_a_hub() -> None:
    with pytest.raises(ap.ModelError, match="because HF_HUB_OFFLINE is set. Connect, or give a folder"):
        ap.Explainer("no-such-org/no-such-model", progress=False)


def test_a_model_object_is_probed_once_while_it_stays_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """And is not kept alive by what was found."""
    probed: list[int] = []
    monkeypatch.setattr(remembered, "probe", lambda model: probed.append(1) or probe(model))
    model = copy.deepcopy(tiny.model())

    def opened(times: int) -> int:
        probed.clear()
        for _ in range(times):
            ap.Explainer((model, tiny.tokenizer()), progress=False).close()
        return len(probed)

    assert opened(3) == 1
    with torch.no_grad():
        model.lm_head.weight.mul_(2)
    assert opened(2) == 1
    model.model.layers[0].mlp = copy.deepcopy(model.model.layers[0].mlp)
    assert opened(2) == 1
    handle = model.model.norm.register_forward_hook(lambda module, read, out: out * 2)
    assert opened(2) == 2, "a user's code may change in ways that nobody sees"
    handle.remove()
    assert opened(2) == 1
    alive = weakref.ref(model)
    del model
    gc.collect()
    assert alive() is None
