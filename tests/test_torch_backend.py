"""The torch backend: batches give the numbers of one row at a time, whatever the model allows."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
import transformers
from torch import nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode

import apportion as ap
from apportion.models.spec import model_spec
from apportion.protocols.inputs import ModelInput
from apportion.scoring.batches import Batches
from apportion.scoring.readout import Readout
from apportion.scoring.scorer import Scorer
from apportion.testing import reference, tiny
from apportion_backends.torch import head, model_session
from apportion_backends.torch import session as session_module
from apportion_backends.torch.backend import TorchBackend
from apportion_backends.torch.head import target_log_probs
from apportion_backends.torch.products import FusedProducts, Partners, linear, multiplies
from apportion_plugins.targets.likelihood import LogProb
from checked import WINDOWS_HAVE_MASKS

# BLOOM and Gemma 2 compute their softmax and Mamba its scan in float32 whatever the dtype.
FLOAT32_PARTS = {"bloom", "gemma2", "mamba"}

TARGET = (40, 41, 42)


def rows_with_prefix(prefix: int) -> list[ModelInput]:
    """Prompts of different lengths that share ``prefix`` tokens, the shortest one token longer."""
    draw = torch.Generator().manual_seed(prefix)
    shared = tuple(torch.randint(0, 256, (prefix,), generator=draw).tolist())
    rests = [torch.randint(0, 256, (n,), generator=draw).tolist() for n in (1, 3, 9, 9, 30)]
    return [ModelInput(shared + tuple(rest)) for rest in rests]


def rows_of_leave_one_out() -> list[ModelInput]:
    """Each with another token replaced, and two shorter ones: nested prefixes of many lengths."""
    prompt = torch.randint(0, 255, (40,), generator=torch.Generator().manual_seed(1)).tolist()
    rows = [[*prompt[:i], 255, *prompt[i + 1 :]] for i in range(0, 40, 2)]
    return [ModelInput(tuple(row)) for row in [prompt, *rows, prompt[:30], prompt[:5]]]


def score(loaded: ap.ModelSpec, inputs: list[ModelInput], target: tuple[int, ...], **options: bool) -> torch.Tensor:
    session = TorchBackend().load(loaded)
    goal = ap.Target(target, tuple(map(str, target)), "")
    return scorer_of(session, goal, **options)(inputs)


def scorer_of(session: ap.Session, goal: ap.Target, **options: bool) -> Scorer:
    batches = Batches(session, share=options.get("share_prefixes", True))

    def score_batch(*, session: ap.Session, batch: ap.ScoringBatch, read: ap.Read) -> torch.Tensor:
        return read(session, batch)

    readout = Readout(session, goal, LogProb())
    return Scorer(session, readout, batches, score_batch=score_batch, lookup=None, report=lambda event: None)


@pytest.mark.parametrize("share", [True, False], ids=["shared-prefix", "whole-rows"])
@pytest.mark.parametrize("prefix", [0, 20, None])
@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_batches_equal_single_rows(
    family: str, prefix: int | None, share: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(model_session, "CPU_BATCH_OVERHEAD", 4)
    model = tiny.model(family)
    inputs = rows_of_leave_one_out() if prefix is None else rows_with_prefix(prefix)
    ours = score(model_spec((model, tiny.tokenizer())), inputs, TARGET, share_prefixes=share)
    expected = torch.stack([reference.sequence_and_tokens(model, row.ids, TARGET) for row in inputs])
    tolerance = 1e-6 if family in FLOAT32_PARTS else 1e-9
    assert torch.allclose(ours, expected, atol=tolerance, rtol=0)


def test_most_families_share_prefixes_and_all_pad() -> None:
    """What the probe found; a fallback that is always taken would pass the test above too."""
    layouts = {
        family: TorchBackend().load(model_spec((tiny.model(family), tiny.tokenizer()))).layout
        for family in tiny.FAMILIES
    }
    assert all(layout.padding for layout in layouts.values())
    assert {family for family, layout in layouts.items() if not layout.prefix_sharing} == {"mamba", "gemma2", "gemma3"}


class Altered(nn.Module):
    """An embedding whose output a subclass changes."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner


class SeesPadding(Altered):
    """Adds to every hidden state what stands in the last column of the row: right for one length only."""

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        return self.inner(ids) * ids.shape[1]


def altered(forward_embedding: type[nn.Module]) -> ap.ModelSpec:
    """A tiny Llama whose embedding depends on the row's length."""
    model = copy.deepcopy(tiny.model())
    model.set_input_embeddings(forward_embedding(model.get_input_embeddings()))
    return model_spec((model, tiny.tokenizer()))


def assert_equals_single_rows(loaded: ap.ModelSpec, prefix: int = 20) -> None:
    inputs = rows_with_prefix(prefix)
    expected = torch.stack([reference.sequence_and_tokens(loaded.objects, row.ids, TARGET) for row in inputs])
    assert torch.allclose(score(loaded, inputs, TARGET), expected, atol=1e-9)


def test_a_model_that_sees_padding_gets_rows_of_one_length() -> None:
    loaded = altered(SeesPadding)
    session = TorchBackend().load(loaded)
    assert not session.layout.padding
    assert not session.layout.prefix_sharing
    assert any("rows of one length" in note for note in session.info.notes)
    assert_equals_single_rows(loaded)


class SeesBatch(Altered):
    """Hidden states depend on how many rows there are."""

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        return self.inner(ids) * ids.shape[0]


def test_a_model_that_sees_its_batch_is_scored_row_by_row() -> None:
    loaded = altered(SeesBatch)
    assert_equals_single_rows(loaded)


class SeesFuture(Altered):
    """Hidden states depend on the whole row."""

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        hidden = self.inner(ids)
        return hidden + hidden.mean(1, keepdim=True)


def test_a_model_that_is_not_causal_is_refused() -> None:
    with pytest.raises(ap.ModelError, match="not a causal language model.*would see itself"):
        TorchBackend().load(altered(SeesFuture))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_masked_language_models_are_refused_in_every_dtype(dtype: torch.dtype) -> None:
    import transformers

    torch.manual_seed(0)
    config = transformers.BertConfig(
        vocab_size=260, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=48
    )
    model = transformers.BertForMaskedLM(config).to(dtype).eval()
    with pytest.raises(ap.ModelError, match="not a causal language model"):
        ap.Explainer((model, tiny.tokenizer()))


def test_models_of_other_kinds_are_refused_in_words() -> None:
    with pytest.raises(ap.ModelError, match="LlamaModel does not give next-token logits.*with a head"):
        ap.Explainer((tiny.model().model, tiny.tokenizer()))


def test_autocast_of_the_caller_changes_nothing() -> None:
    loaded = model_spec((tiny.model("llama", torch.float32), tiny.tokenizer()))
    inputs = rows_with_prefix(20)
    plain = score(loaded, inputs, TARGET)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(score(loaded, inputs, TARGET), plain)


def test_logits_of_half_precision_models_are_not_rounded_to_it() -> None:
    model = tiny.model("llama", torch.bfloat16)
    session = TorchBackend().load(model_spec((model, tiny.tokenizer())))
    (logits,) = session.logits(ap.ScoringBatch.of([(1, 2, 3, 4)], TARGET), 1)
    assert logits.dtype == torch.float32
    assert not torch.equal(logits, logits.bfloat16().float())
    found = logits.log_softmax(-1)[0, torch.arange(3), torch.tensor(TARGET)]
    assert torch.allclose(found, session.log_probs(ap.ScoringBatch.of([(1, 2, 3, 4)], TARGET))[0], atol=1e-5)


def test_target_functions_see_a_few_rows_of_logits_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """One forward for many rows, and never more logits than LOGITS_BYTES hold, those of a contrast included."""
    shapes: list[tuple[int, ...]] = []

    def largest(logits: torch.Tensor) -> torch.Tensor:
        shapes.append(tuple(logits.shape))
        return logits.amax(-1)

    with ap.Explainer((tiny.model(), tiny.tokenizer())) as explainer:
        vocabulary = explainer.session.info.vocabulary
        monkeypatch.setattr("apportion.scoring.readout.LOGITS_BYTES", 4 * vocabulary * 2 * 3)
        result = explainer.attribute("a b c", " xy", method="shapley", target_fn=largest)
    assert result.provenance.evaluations == 8
    assert shapes == [(2, 3, vocabulary)] * 4


def test_generation_settings_of_the_model_do_not_change_greedy() -> None:
    model = copy.deepcopy(tiny.model())
    plain = TorchBackend().load(model_spec((model, tiny.tokenizer()))).generate(ModelInput((1, 2, 3)), {}, seed=0)
    model.generation_config.repetition_penalty = 5.0
    model.generation_config.num_beams = 3
    assert (
        TorchBackend().load(model_spec((model, tiny.tokenizer()))).generate(ModelInput((1, 2, 3)), {}, seed=0) == plain
    )


class ScaledHead(nn.Linear):
    """A head that is no plain linear map, and whose configuration says nothing of that."""

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        return torch.tanh(super().forward(hidden)) * 5


@pytest.mark.parametrize("prefix", [0, 20])
def test_a_head_that_is_not_linear_uses_the_models_own_logits(prefix: int) -> None:
    model = copy.deepcopy(tiny.model())
    head = ScaledHead(32, tiny.VOCABULARY, bias=False, dtype=torch.float64)
    model.set_output_embeddings(head)
    loaded = model_spec((model, tiny.tokenizer()))
    inputs = rows_with_prefix(prefix)
    expected = torch.stack([reference.sequence_and_tokens(model, row.ids, TARGET) for row in inputs])
    assert torch.allclose(score(loaded, inputs, TARGET), expected, atol=1e-9)


@pytest.mark.parametrize("family", ["gemma2", "gemma3"])
def test_a_soft_cap_is_part_of_the_head(family: str) -> None:
    """Logits are read in slices; rows are packed only where scores of attention are not capped too."""
    config = tiny.config(family)
    config.final_logit_softcapping = 3.0
    config.sliding_window = 400
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = transformers.AutoModelForCausalLM.from_config(config).double().eval()
    model.get_input_embeddings().weight.data.mul_(30)  # the head has the same weights
    loaded = model_spec((model, tiny.tokenizer()))
    session = TorchBackend().load(loaded)
    assert session.linear_head
    assert session.layout.packing == (family == "gemma3" and not WINDOWS_HAVE_MASKS)
    inputs = rows_with_prefix(20)
    expected = torch.stack([reference.sequence_and_tokens(model, row.ids, TARGET) for row in inputs])
    model.config.final_logit_softcapping = None
    uncapped = reference.sequence_and_tokens(model, inputs[0].ids, TARGET)
    model.config.final_logit_softcapping = 3.0
    assert float((uncapped - expected[0]).abs().max()) > 0.1, "the cap bites"
    assert torch.allclose(score(loaded, inputs, TARGET), expected, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize(("rows", "width", "vocabulary"), [(1, 5, 7), (13, 65, 1009)])
def test_head_equals_float64_in_every_dtype(
    dtype: torch.dtype, rows: int, width: int, vocabulary: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also in bf16: rounding is in the inputs, not in the sums. Slices are odd, and the bias counts."""
    monkeypatch.setitem(head.CHUNK_BYTES, "cpu", 4 * rows * 100)
    draw = torch.Generator().manual_seed(0)
    hidden = torch.randn(rows, width, generator=draw, dtype=torch.float64).to(dtype)
    weight = torch.randn(vocabulary, width, generator=draw, dtype=torch.float64).to(dtype)
    bias = torch.randn(vocabulary, generator=draw, dtype=torch.float64).to(dtype)
    target = torch.randint(0, vocabulary, (rows,), generator=draw)
    ours = target_log_probs(hidden, head.Head(weight, bias), target)
    logits = hidden.double() @ weight.double().T + bias.double()
    expected = logits.log_softmax(-1).gather(1, target[:, None])[:, 0]
    assert ours.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    assert torch.allclose(ours.double(), expected, atol=1e-10 if dtype == torch.float64 else 1e-4, rtol=0)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("shape", [(1, 1, 5), (2, 3, 65), (1031, 16)])
def test_products_are_those_of_linear_layers(dtype: torch.dtype, shape: tuple[int, ...]) -> None:
    """Also of a view with strides; with gradients, where oneDNN has none."""
    draw = torch.Generator().manual_seed(0)
    layer = torch.nn.Linear(shape[-1], 37, dtype=dtype)
    x = torch.randn(*shape, 2, generator=draw).to(dtype)[..., 0]
    expected = torch.nn.functional.linear(x, layer.weight, layer.bias)
    with torch.inference_mode():
        assert torch.allclose(linear(x, layer.weight, layer.bias), expected, atol=1e-5)
        assert torch.allclose(
            linear(x, layer.weight, None), expected - layer.bias, atol=1e-5 if dtype != torch.bfloat16 else 0.05
        )
    linear(x, layer.weight, layer.bias).sum().backward()
    assert layer.weight.grad is not None


class Multiplied(TorchFunctionMode):
    """Products of everything inside the context by oneDNN; counts how many operations were left out."""

    def __init__(self, partners: Partners, *, learns: bool = False) -> None:
        super().__init__()
        self.products, self.calls = FusedProducts(partners, learns=learns), []

    def __torch_function__(self, func: Callable, types: object, args: tuple = (), kwargs: dict | None = None) -> object:
        found = self.products(func, args, kwargs or {})
        if found is None:
            self.calls.append(func)
        return func(*args, **(kwargs or {})) if found is None else found

    def __exit__(self, *error: object) -> None:
        super().__exit__(*error)
        self.products.finish()


class GatedUnit(nn.Module):
    """The feed-forward layer of Llama and others; ``held`` keeps what its gate returned."""

    def __init__(self) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.gate, self.up, self.down = nn.Linear(5, 7), nn.Linear(5, 7, bias=False), nn.Linear(7, 5)
        self.held: torch.Tensor | None = None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.down(functional.silu(self.gate(x)) * self.up(x))


class HoldsItsGate(GatedUnit):
    """Reads the gate's output again after the activation."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        gate = self.gate(x)
        return self.down(functional.silu(gate) * self.up(x) + gate)


class HasAnotherActivation(GatedUnit):
    """Follows the gate by another operation."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.down(functional.relu(self.gate(x)) * self.up(x) + self.up(x))


class EndsWithItsGate(GatedUnit):
    """Nothing follows the gate, or the product that a factor followed before."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        functional.silu(self.gate(x))
        self.held = self.up(x)
        return self.gate(x)


class WritesInPlace(GatedUnit):
    """Applies the activation in place."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        gate = self.gate(x)
        functional.silu(gate, inplace=True)
        return self.down(gate * self.up(x))


@pytest.mark.skipif(
    not multiplies(torch.device("cpu"), torch.float32), reason="needs a PyTorch with oneDNN's fused products"
)
@pytest.mark.parametrize("kind", [GatedUnit, HoldsItsGate, HasAnotherActivation, EndsWithItsGate, WritesInPlace])
def test_an_activation_is_computed_with_its_product_only_where_nobody_can_tell(kind: type[GatedUnit]) -> None:
    """Products expect what followed them before; this time another module with the same weights uses them."""
    x = torch.randn(2, 3, 5, generator=torch.Generator().manual_seed(1))
    usual, unit, partners = GatedUnit(), kind(), Partners()
    unit.gate, unit.up, unit.down = usual.gate, usual.up, usual.down
    stored: list[torch.Tensor] = []
    with torch.inference_mode():
        expected, held = unit(x), unit.held
        for learns in (True, False):
            with Multiplied(partners, learns=learns) as mode:
                usual(x)
        assert functional.silu not in mode.calls, "the gate's activation was computed with it"
        assert torch.Tensor.mul not in mode.calls
        with Multiplied(partners):
            found = unit(x)
        assert torch.allclose(found, expected, atol=1e-6)
        assert held is None or torch.allclose(unit.held, held, atol=1e-6)
        with Multiplied(partners, learns=True):
            usual(x)
        handle = usual.gate.register_forward_hook(lambda module, given, found: stored.append(found))
        with Multiplied(partners):
            found = usual(x)
        handle.remove()
        assert torch.allclose(found, usual(x), atol=1e-6)
        assert torch.allclose(stored[0], usual.gate(x), atol=1e-6), "a hook that keeps the output sees the output"


def test_half_precision_is_reduced_in_fp32() -> None:
    """bf16 models differ from fp32 ones by their weights' rounding, and report their dtype."""
    loaded = model_spec((tiny.model("llama", torch.bfloat16), tiny.tokenizer()))
    session = TorchBackend().load(loaded)
    assert session.info.dtype == "bfloat16"
    batch = ap.ScoringBatch.of([(1, 2, 3, 4)], TARGET)
    assert session.log_probs(batch).dtype == torch.float32


def test_logits_give_the_log_probs() -> None:
    session = TorchBackend().load(model_spec((tiny.model(), tiny.tokenizer())))
    batch = ap.ScoringBatch.of([(1, 2, 3, 4), (5, 6)], TARGET)
    found = torch.cat(list(session.logits(batch, 1))).log_softmax(-1)[:, torch.arange(3), torch.tensor(TARGET)]
    assert torch.allclose(found, session.log_probs(batch), atol=1e-12)


class OutOfMemorySession:
    """A real session that cannot hold more than some rows."""

    def __init__(self, inner: session_module.TorchSession, most: int) -> None:
        self.inner, self.most, self.sizes = inner, most, []
        self.info, self.layout, self.capabilities = inner.info, inner.layout, inner.capabilities
        self.row_bytes, self.close, self.release = inner.row_bytes, inner.close, inner.release
        self.kept = None

    def log_probs(self, batch: ap.ScoringBatch) -> torch.Tensor:
        self.sizes.append(batch.n_rows)
        if batch.n_rows > self.most:
            raise ap.BatchTooLargeError("allocator says no")
        return self.inner.log_probs(batch)


def test_out_of_memory_halves_the_batch_and_says_so() -> None:
    loaded = model_spec((tiny.model(), tiny.tokenizer()))
    session = OutOfMemorySession(TorchBackend().load(loaded), most=2)
    goal = ap.Target(TARGET, ("a", "b", "c"), "abc")
    scorer = scorer_of(session, goal)
    inputs = rows_with_prefix(0)
    expected = score(loaded, inputs, TARGET)
    assert torch.allclose(scorer(inputs), expected)
    assert session.sizes == [5, 2, 2, 1], "what is known not to fit is not tried"
    assert scorer.tally.notes[0] == "memory ran out on a batch of 5 rows; continued with 2"
    scorer(inputs)
    assert max(session.sizes[4:]) <= 2, "the limit is remembered"
    session.most = 0
    with pytest.raises(ap.BatchTooLargeError, match=r"A single prompt of \d+ tokens does not fit.*allocator says no"):
        scorer(inputs)


def test_allocation_failures_of_pytorch_are_recognised(monkeypatch: pytest.MonkeyPatch) -> None:
    session = TorchBackend().load(model_spec((tiny.model(), tiny.tokenizer())))
    for error in (
        torch.OutOfMemoryError("CUDA out of memory. Tried"),
        RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory: you tried"),
    ):

        def fail(*args: object, error: Exception = error, **kwargs: object) -> None:
            raise error

        monkeypatch.setattr(session, "hidden", fail)
        with pytest.raises(ap.BatchTooLargeError):
            session.log_probs(ap.ScoringBatch.of([(1, 2)], TARGET))


def test_a_model_is_given_back_as_it_was() -> None:
    model = copy.deepcopy(tiny.model())
    model.train()
    explainer = ap.Explainer((model, tiny.tokenizer()))
    explainer.attribute("one two", target=" three", method="ablation")
    assert model.training
    assert all(module.training for module in model.modules())
    explainer.close()
    explainer.close()
    with pytest.raises(ap.BackendError, match="closed"):
        explainer.attribute("one two", target=" three")


def test_device_and_dtype_are_what_the_user_says() -> None:
    pair = (copy.deepcopy(tiny.model()), tiny.tokenizer())
    assert ap.Explainer(pair, dtype="float32").session.info.dtype == "float32"
    with pytest.raises(ap.BackendError, match="No dtype is called 'float31'.*float64"):
        ap.Explainer(pair, dtype="float31")
    with pytest.raises(ap.BackendError, match="No device is called 'gpu0'"):
        ap.Explainer(pair, device="gpu0")
    if not torch.cuda.is_available():
        with pytest.raises(ap.BackendError, match="'cuda' is not available.*finds no CUDA device"):
            ap.Explainer(pair, device="cuda")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device, and this machine has none")
def test_cuda_equals_cpu() -> None:
    inputs = rows_with_prefix(20)
    cpu = score(model_spec((tiny.model(), tiny.tokenizer())), inputs, TARGET)
    explainer = ap.Explainer((copy.deepcopy(tiny.model()), tiny.tokenizer()), device="cuda")
    goal = ap.Target(TARGET, tuple(map(str, TARGET)), "")
    gpu = scorer_of(explainer.session, goal)(inputs)
    assert torch.allclose(cpu, gpu, atol=1e-9)


def test_generation_is_greedy_and_reproducible(explainer: ap.Explainer) -> None:
    session = explainer.session
    assert isinstance(session, session_module.TorchSession)
    greedy = session.generate(ModelInput((1, 2, 3)), {}, seed=0)
    assert 1 <= len(greedy) <= 25
    scores = session.model(torch.tensor([[1, 2, 3]])).logits[0, -1]
    assert greedy[0] == int(scores.argmax())
    state = torch.random.get_rng_state()
    sampled = [
        session.generate(ModelInput((1, 2, 3)), {"do_sample": True, "temperature": 2.0, "max_new_tokens": 8}, seed=7)
        for _ in "ab"
    ]
    assert sampled[0] == sampled[1]
    assert torch.equal(state, torch.random.get_rng_state()), "the caller's random state is untouched"
    with pytest.raises(ap.InputError, match="max_new_tokenz"):
        session.generate(ModelInput((1, 2, 3)), {"max_new_tokenz": 5}, seed=0)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")  # PyTorch's compiler itself
def test_a_compiled_model_gives_the_same_numbers_and_stays_as_it_was() -> None:
    loaded = model_spec((copy.deepcopy(tiny.model(dtype=torch.float32)), tiny.tokenizer()))
    inputs = rows_of_leave_one_out()
    goal = ap.Target(TARGET, tuple(map(str, TARGET)), "")
    plain, compiled = (
        scorer_of(TorchBackend().load(loaded, compile=compile), goal)(inputs) for compile in (False, True)
    )
    assert torch.allclose(plain, compiled, atol=1e-5)
    assert type(loaded.objects.base_model).__name__ == "LlamaModel"
    assert not torch.equal(plain, torch.zeros_like(plain))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")  # PyTorch's compiler itself
def test_a_compiled_model_that_changes_is_compiled_again() -> None:
    model = copy.deepcopy(tiny.model(dtype=torch.float32))
    session = TorchBackend().load(model_spec((model, tiny.tokenizer())), compile=True)
    batch = ap.ScoringBatch.of([(1, 2, 3), (1, 2, 4)], TARGET, packed=True)

    def check() -> None:
        session.release()
        for row, found in zip(batch.rows, session.log_probs(batch), strict=True):
            assert torch.allclose(found.double(), reference.log_probs(model, row.prompt, row.target), atol=1e-4)

    check()
    assert not session.info.notes, "it was compiled, and read as a packed batch"
    mlp = type(model.model.layers[0].mlp)
    forward = mlp.forward
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(mlp, "forward", lambda self, x: forward(self, x) * 3)
        check()
    model.model.layers[0].self_attn.scaling *= 2
    check()


def hook_on_head(model: nn.Module) -> None:
    model.lm_head.register_forward_hook(lambda module, inputs, output: output * 2)


def hook_before_head(model: nn.Module) -> None:
    model.lm_head.register_forward_pre_hook(lambda module, inputs: (inputs[0] * 2,))


def another_head(model: nn.Module) -> None:
    model.lm_head = nn.Sequential(model.lm_head, nn.Tanh())


def another_forward(model: nn.Module) -> None:
    own = model.forward

    def forward(*args: object, **kwargs: object) -> object:
        found = own(*args, **kwargs)
        found.logits = found.logits * 2
        return found

    model.forward = forward


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("change", [hook_on_head, hook_before_head, another_head, another_forward])
def test_what_is_changed_around_the_output_layer_counts(change: Callable[[nn.Module], None], when: str) -> None:
    model = copy.deepcopy(tiny.model())
    if when == "before":
        change(model)
    session = TorchBackend().load(model_spec((model, tiny.tokenizer())))
    goal, inputs = ap.Target(TARGET, tuple(map(str, TARGET)), ""), rows_with_prefix(20)
    scorer_of(session, goal)(inputs)
    session.release()
    if when == "after":
        change(model)
    expected = torch.stack([reference.sequence_and_tokens(model, row.ids, TARGET) for row in inputs])
    assert torch.allclose(scorer_of(session, goal)(inputs), expected, atol=1e-9)


def test_options_are_of_a_backend_that_is_named() -> None:
    pair = (tiny.model(), tiny.tokenizer())
    with pytest.raises(ap.InputError, match="has no option 'compiled'. Did you mean 'compile'"):
        ap.Explainer(pair, backend="torch", backend_options={"compiled": True})
    with pytest.raises(ap.InputError, match="has no option 'device'"):
        ap.Explainer(pair, backend="torch", backend_options={"device": "cpu"})
    with pytest.raises(ap.InputError, match="are options of one backend; name it"):
        ap.Explainer(pair, backend_options={"compile": True})
