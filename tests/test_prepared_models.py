"""Models as other packages leave them (quantised, offloaded, dispatched), and models with limits of their own."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from torch import nn
from transformers import PreTrainedModel

import apportion as ap
from apportion.cli import main
from apportion.models.spec import model_spec
from apportion.protocols.row import Row
from apportion.scoring.plan import plan
from apportion.testing import reference, tiny
from apportion_backends.torch.backend import TorchBackend
from checked import Checked
from prepared import by_device_map, dispatched, in_4_bits, in_8_bits, offloaded, on_disk, tiny_copy

accelerate = pytest.importorskip("accelerate")


@pytest.mark.parametrize("make", [offloaded, on_disk, dispatched, by_device_map])
def test_offloaded_models_score_as_they_do_in_memory(make: Callable[[Path], PreTrainedModel], tmp_path: Path) -> None:
    expected = Checked(tiny_copy()).run().values
    checked = Checked(make(tmp_path))
    found = checked.run()
    assert abs(found.values - expected).max() < 1e-5
    assert not found.provenance.notes
    assert found.provenance.device == "cpu"
    assert torch.isfinite(checked.explainer.session.embeddings((1, 2))).all()


def test_hooks_of_accelerates_kind_are_code_of_a_user(tmp_path: Path) -> None:
    class Scales(accelerate.hooks.ModelHook):
        factor = 1.0

        def post_forward(self, module: nn.Module, output: torch.Tensor) -> torch.Tensor:
            return output * self.factor

    model, hook = tiny_copy(), Scales()
    accelerate.hooks.add_hook_to_module(model.model.layers[0].mlp, accelerate.hooks.ModelHook())
    accelerate.hooks.add_hook_to_module(model.model.layers[0].mlp, hook, append=True)
    with pytest.warns(RuntimeWarning, match="has a hook of accelerate's kind, Scales"):
        checked = Checked(model, cache=tmp_path / "scores.sqlite")
        first = checked.run()
        hook.factor = 3.0
        assert abs(checked.run().values - first.values).max() > 1e-4
    assert any("code of your own" in note for note in first.provenance.notes)


@pytest.mark.parametrize(
    "make", [in_4_bits, lambda: in_8_bits(True), lambda: in_8_bits(False)], ids=["4-bit", "8-bit", "8-bit, plain head"]
)
def test_quantised_weights_stay_as_they_are(make: Callable[[], PreTrainedModel], tmp_path: Path) -> None:
    """Two runs are equal, also with a cache; rows equal one-row forwards of the quantised model."""
    model = make()
    checked = Checked(model, cache=tmp_path / "scores.sqlite")
    first = checked.run()
    again = checked.run()
    assert (first.values == again.values).all()
    assert again.provenance.cached == first.provenance.evaluations
    other = checked.run("ab cd eg")
    assert other.provenance.fingerprint == first.provenance.fingerprint
    assert checked.explainer.session.info.vocabulary == tiny.VOCABULARY


def test_weights_of_4_bits_that_are_scaled_otherwise_are_another_model() -> None:
    one, other = (TorchBackend().load(model_spec((in_4_bits(), tiny.tokenizer()))) for _ in "ab")
    assert one.checksum() == other.checksum()
    scales = other.model.model.layers[0].mlp.up_proj.weight.quant_state
    scales.absmax = scales.absmax * 2
    assert one.checksum() != other.checksum()


@pytest.mark.filterwarnings("ignore")
def test_dynamically_quantised_models_are_refused_for_the_real_reason() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = torch.ao.quantization.quantize_dynamic(tiny_copy(), {nn.Linear})
    with pytest.raises(ap.ModelError, match="quantise all tokens of a forward pass by one scale.*torchao"):
        ap.Explainer((model, tiny.tokenizer()))


def test_models_without_logits_for_each_token_are_refused_for_that() -> None:
    model = transformers.LlamaForSequenceClassification(tiny.config("llama"))
    with pytest.raises(ap.ModelError, match=r"does not give logits for each token: those of 9 tokens .* \(1, 2\)"):
        ap.Explainer((model, tiny.tokenizer()))


def test_folders_that_hold_no_model_are_told_apart(tmp_path: Path) -> None:
    with pytest.raises(ap.ModelError, match=r"has no config.json, so it is not a saved model; it holds nothing"):
        ap.Explainer(str(tmp_path))
    tiny.model().save_pretrained(tmp_path)
    tiny.tokenizer().save_pretrained(tmp_path)
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:2000])
    with pytest.raises(ap.ModelError, match=r"A weights file .* of the model .* is damaged or incomplete"):
        ap.Explainer(str(tmp_path))


def limited(config: Any) -> PreTrainedModel:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return transformers.AutoModelForCausalLM.from_config(config).eval()


ROBERTA = transformers.RobertaConfig(
    vocab_size=260, hidden_size=32, num_hidden_layers=1, num_attention_heads=4, intermediate_size=48, pad_token_id=1,
    max_position_embeddings=20, is_decoder=True,
)  # fmt: skip
MPT = transformers.MptConfig(d_model=32, n_heads=4, n_layers=1, max_seq_len=20, vocab_size=260)
GPT2 = transformers.GPT2Config(vocab_size=260, n_embd=32, n_layer=1, n_head=4, n_positions=20)
OPT = transformers.OPTConfig(
    vocab_size=260, hidden_size=32, ffn_dim=48, num_hidden_layers=1, num_attention_heads=4, max_position_embeddings=20
)
BIOGPT = transformers.BioGptConfig(
    vocab_size=260, hidden_size=32, num_hidden_layers=1, num_attention_heads=4, intermediate_size=48,
    max_position_embeddings=20,
)  # fmt: skip


@pytest.mark.parametrize(("config", "limit"), [(ROBERTA, 18), (MPT, 20), (GPT2, 20), (OPT, 20), (BIOGPT, 20)])
def test_the_limit_of_positions_is_found(config: Any, limit: int) -> None:
    model = limited(config)
    session = TorchBackend().load(model_spec((model, tiny.tokenizer())))
    assert session.info.context_length == limit
    explainer = ap.Explainer((model, tiny.tokenizer()), progress=False)
    with pytest.raises(ap.InputError, match=f"context length (is|of) {limit}"):
        explainer.attribute("a" * limit, "b", method="ablation")
    prompt, target = tuple(range(10, 10 + limit - 2)), (5, 6)
    found = session.log_probs(ap.ScoringBatch((Row(prompt, target),)))[0].double()
    assert torch.allclose(found, reference.log_probs(model, prompt, target), atol=1e-5)


class HasALimit(nn.Module):
    """Fails on long inputs, as a table of positions does that no configuration knows of."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner, self.table = inner, nn.Parameter(torch.zeros(16, 32))

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        return self.inner(ids) + self.table[torch.arange(ids.shape[1])]


def test_a_limit_that_nobody_declares_is_an_error_in_words(tmp_path: Path) -> None:
    model = tiny_copy()
    model.set_input_embeddings(HasALimit(model.get_input_embeddings()))
    explainer = ap.Explainer((model, tiny.tokenizer()), progress=False)
    with pytest.raises(ap.ScoreError, match="failed on a prompt of 20 tokens and a target of 2 .*IndexError"):
        explainer.attribute("a" * 20, "bc", method="ablation", features="words")
    assert explainer.attribute("ab cd", "ef", method="ablation").values.shape == (2,)


def test_the_command_line_says_it_too(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    limited(MPT).save_pretrained(tmp_path)
    tiny.tokenizer().save_pretrained(tmp_path)
    assert main(["attribute", "a" * 30, "--target", "b", "--model", str(tmp_path)])
    said = capsys.readouterr().err
    assert "context" in said
    assert "Traceback" not in said


def test_unused_tokens_may_have_logits_of_minus_infinity() -> None:
    model = tiny_copy()
    head = nn.Linear(32, tiny.VOCABULARY)
    head.weight = model.lm_head.weight
    with torch.no_grad():
        head.bias.zero_()
        head.bias[250:] = -torch.inf
    model.lm_head = head
    checked = Checked(model)
    assert checked.run().provenance.notes == ()
    for function in ("prob", "logit", "entropy"):
        found = checked.explainer.attribute("ab cd", "ef", method="ablation", target_fn=function)
        assert torch.isfinite(torch.as_tensor(found.values)).all(), function
    with pytest.raises(ap.ScoreError, match="not finite"):
        checked.explainer.attribute("ab cd", [251], method="ablation")
    model.lm_head = nn.Sequential(head)  # logits that are the model's own
    assert torch.allclose(torch.as_tensor(checked.run().values), torch.as_tensor(Checked(model).run().values))


SPARSE = {
    "num_key_value_heads": 4, "q_lora_rank": 16, "kv_lora_rank": 8, "qk_rope_head_dim": 8, "qk_nope_head_dim": 8,
    "v_head_dim": 8, "n_routed_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16,
    "n_shared_experts": 1, "n_group": 1, "topk_group": 1, "first_k_dense_replace": 1, "index_topk": 12,
    "index_n_heads": 2, "index_head_dim": 16,
}  # fmt: skip
PLAIN = {"num_key_value_heads": 4}
BY_LENGTH = {
    "deepseek_v32": ("DeepseekV32Config", SPARSE),
    "glm_moe_dsa": ("GlmMoeDsaConfig", SPARSE),
    "doge": ("DogeConfig", PLAIN | {"keep_window_size": 12}),
    "llama4": ("Llama4TextConfig", PLAIN | {
        "head_dim": 8, "attention_chunk_size": 16, "num_local_experts": 2, "num_experts_per_tok": 1,
        "intermediate_size_mlp": 48,
    }),
    "gpt_oss": ("GptOssConfig", PLAIN | {
        "head_dim": 8, "sliding_window": 12, "num_local_experts": 4, "num_experts_per_tok": 2,
    }),
    "mistral": ("MistralConfig", PLAIN | {"sliding_window": 12}),
}  # fmt: skip


@pytest.mark.parametrize("family", BY_LENGTH)
def test_values_that_depend_on_the_length_of_a_batch(family: str) -> None:
    """Rows shorter and longer than windows, chunks and numbers of keys, in every layout that the session allows."""
    name, sizes = BY_LENGTH[family]
    if not hasattr(transformers, name):
        pytest.skip(f"this version of transformers has no {name}")
    common = {"vocab_size": 260, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2}
    config = getattr(transformers, name)(
        **common, num_attention_heads=4, max_position_embeddings=512, bos_token_id=256, eos_token_id=257,
        pad_token_id=257, **sizes,
    )  # fmt: skip
    model = limited(config).float()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(4 if parameter.ndim > 1 else 1)
    draw = torch.Generator().manual_seed(5)
    start, *rests = (
        tuple(torch.randint(0, 256, (n,), generator=draw).tolist()) for n in (10, 2, 3, 6, 9, 20, 35, 60, 60)
    )
    rows = sorted((Row(start + rest, (5, 6, 7)) for rest in rests), key=lambda row: row.read)
    session = TorchBackend().load(model_spec((model, tiny.tokenizer())))
    expected = {row: reference.log_probs(model, row.prompt, row.target) for row in rows}
    made = plan(rows, session.layout, session.row_bytes, 10**9)
    for batch in made.batches:
        for i, found in zip(batch.rows, session.log_probs(made.scoring_batch(batch)), strict=True):
            assert torch.allclose(found.double(), expected[rows[i]], atol=2e-5), (family, len(rows[i].read))


BY_LENGTH_ALONE = """
class ByLength(nn.Module):
    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, x):
        return self.inner(x) * (1 + max(0, x.shape[1] - 100))
"""


def test_rows_beyond_a_large_window_are_compared_with_rows_alone() -> None:
    """Forwards of thousands of tokens are not made at the start, but where rows are that long."""
    config = tiny.config("llama")
    config.max_position_embeddings, config.attention_window = 600, 100
    model = limited(config)

    written: dict[str, Any] = {"__name__": "transformers.models.made_up", "nn": nn}  # as if transformers had it
    exec(BY_LENGTH_ALONE, written)
    model.model.layers[0].mlp = written["ByLength"](model.model.layers[0].mlp)
    session = TorchBackend().load(model_spec((model, tiny.tokenizer())))
    assert session.layout.packing
    short = ap.ScoringBatch.of([(1, 2, 3), (1, 2, 4)], (5,), packed=True)
    long = ap.ScoringBatch.of([(*range(120), 3), (*range(120), 4), (*range(110), 5)], (5,), packed=True)
    for batch in (short, long):
        for row, found in zip(batch.rows, session.log_probs(batch), strict=True):
            assert torch.allclose(found.double(), reference.log_probs(model, row.prompt, row.target), atol=1e-4)
    assert session.info.notes == ("this model gives other numbers in such a batch; rows were scored without packing",)
    assert not session.layout.packing
