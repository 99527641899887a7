"""The inside of models: gradients, edits and traces, on models as users and other packages leave them."""

from __future__ import annotations

import gc
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

import apportion as ap
from apportion.protocols.backend import WHITE_BOX
from apportion.testing import tiny
from apportion.testing.explainers import tiny_explainer
from prepared import by_device_map, dispatched, in_4_bits, in_8_bits, offloaded, on_disk, tiny_copy

PROMPT, TARGET = "one two three", " four"


class Ask:
    """A method that asks the inside something, and keeps the answer."""

    estimand, requires = "nothing", WHITE_BOX - {ap.Capability.ATTENTIONS}

    def __init__(self, ask: Callable[[ap.Inside], Any]) -> None:
        self.ask = ask
        self.found: Any = None

    def run(self, game: ap.Game, *, budget: int | None, rng: torch.Generator) -> ap.Estimate:
        self.found = self.ask(game.inside())
        return ap.Estimate(torch.zeros(game.n_features, game.n_outputs))


def asked(explainer: ap.Explainer, ask: Callable[[ap.Inside], Any], prompt: Any = PROMPT, **arguments: Any) -> Any:
    method = Ask(ask)
    explainer.attribute(prompt, TARGET, method=method, **arguments)
    return method.found


@pytest.fixture(scope="module")
def llama() -> Iterator[ap.Explainer]:
    with tiny_explainer() as explainer:
        yield explainer


@contextmanager
def unchanged(model: PreTrainedModel) -> Iterator[None]:
    """Check that outputs, hooks, modes, flags and gradients of a model are the same afterwards."""

    def state() -> Any:
        return [
            (list(m._forward_hooks), list(m._forward_pre_hooks), m.training, sorted(vars(m))) for m in model.modules()
        ], [(p.requires_grad, p.grad is None, p.data_ptr()) for p in model.parameters()]

    def output() -> Tensor:
        training = [module for module in model.modules() if module.training]
        with torch.no_grad():
            found: Tensor = model.eval()(torch.tensor([[1, 2, 3]])).logits
        for module in training:
            module.training = True
        return found

    before, scores, mode = state(), output(), torch.is_grad_enabled()
    yield
    assert state() == before
    assert torch.equal(output(), scores)
    assert torch.is_grad_enabled() == mode


def everything(inside: ap.Inside) -> tuple[Tensor, Tensor]:
    """Use all of it once."""
    point = inside.embeddings()[None]
    names = [name for name in inside.modules() if name.endswith("mlp")][:1]
    found = inside.gradients(point, following=inside.following()[None])
    inside.module_gradients(point, names)
    inside.values(point, edits=ap.Edits(outputs={name: lambda _, __, output: output for name in names}))
    inside.trace(hidden=True, modules=names)
    return found.values, found.prompt


def trained(folder: Path) -> PreTrainedModel:
    return tiny_copy().train()


def frozen(folder: Path) -> PreTrainedModel:
    return tiny_copy().requires_grad_(False)


def checkpointed(folder: Path) -> PreTrainedModel:
    model = tiny_copy().train()
    # The older of the two names warns that it will go.
    getattr(model, "activation_checkpointing_enable", model.gradient_checkpointing_enable)()
    return model


def eager(folder: Path) -> PreTrainedModel:
    model = tiny_copy()
    model.set_attn_implementation("eager")
    return model


def with_lora(folder: Path) -> PreTrainedModel:
    """An adapter that changes nothing yet, because its second factor is zero."""
    peft = pytest.importorskip("peft")
    model = peft.get_peft_model(tiny_copy(), peft.LoraConfig(r=2, target_modules=["q_proj", "down_proj"]))
    found: PreTrainedModel = model.get_base_model()
    return found


@pytest.mark.parametrize(
    "make",
    [trained, frozen, checkpointed, eager, offloaded, on_disk, dispatched, by_device_map],
    ids=lambda m: m.__name__,
)
def test_models_in_any_state_give_their_gradients_and_stay_as_they_are(
    make: Callable[[Path], PreTrainedModel], tmp_path: Path
) -> None:
    model = make(tmp_path)
    with ap.Explainer((tiny_copy(), tiny.tokenizer()), progress=False) as explainer:
        values, slopes = asked(explainer, everything)
    with unchanged(model), ap.Explainer((model, tiny.tokenizer()), progress=False) as explainer:
        found = asked(explainer, everything)
    assert torch.allclose(found[0], values, atol=1e-5)
    assert torch.allclose(found[1], slopes, atol=1e-5)


@pytest.mark.parametrize("head", [False, True])
def test_gradients_of_quantised_models_are_those_of_what_they_compute(head: bool) -> None:
    with ap.Explainer((in_8_bits(head=head), tiny.tokenizer()), progress=False) as explainer:
        _, slopes = asked(explainer, everything)
        embedded = explainer.session.embeddings(tuple(tiny.tokenizer()(PROMPT)["input_ids"]))
        step = 1e-3 * torch.randn(embedded.shape, generator=torch.Generator().manual_seed(0))

        def change(inside: ap.Inside) -> Tensor:
            with torch.no_grad():
                found = inside.values(torch.stack([embedded + step, embedded - step]))
            return found[0, 0] - found[1, 0]

        assert float((slopes[0, 0] * step).sum()) == pytest.approx(float(asked(explainer, change)) / 2, rel=0.05)


def test_kernels_without_a_gradient_are_found_out() -> None:
    """On CPUs with AVX-512, bitsandbytes has one whose gradient is silently zero."""
    model = tiny_copy()

    class Cut(nn.Linear):
        def forward(self, states: Tensor) -> Tensor:
            return super().forward(states.detach())

    layer = model.model.layers[0].mlp.up_proj
    model.model.layers[0].mlp.up_proj = Cut(layer.in_features, layer.out_features, bias=False)
    for made in (model, in_4_bits() if has_wrong_kernel() else model):
        with ap.Explainer((made, tiny.tokenizer()), progress=False) as explainer:
            with pytest.raises(ap.CapabilityError, match="differ from finite differences.*Use a perturbation method"):
                asked(explainer, everything)
            explainer.attribute(PROMPT, TARGET)


def has_wrong_kernel() -> bool:
    """True if 4-bit layers use the kernel here."""
    try:
        from bitsandbytes.functional import has_avx512bf16
    except ImportError:
        return False
    return bool(has_avx512bf16())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_half_precision_gives_finite_gradients_near_those_of_fp32(dtype: torch.dtype) -> None:
    found = []
    for model in (tiny_copy(), tiny_copy().to(dtype)):
        with ap.Explainer((model, tiny.tokenizer()), progress=False) as explainer:
            found.append(asked(explainer, everything)[1][0].flatten().double())
    assert torch.nn.functional.cosine_similarity(*found, dim=0) > 0.98


# --- edits -----------------------------------------------------------------------------------------------------------


def test_an_edit_takes_the_place_of_an_output_or_input(llama: ap.Explainer) -> None:
    def zero(inside: ap.Inside) -> tuple[Tensor, ...]:
        point, name = inside.embeddings()[None], "model.layers.0.mlp"
        by_output = ap.Edits(outputs={name: lambda module, read, output: 0 * output})
        by_input = ap.Edits(inputs={name: lambda module, read: 0 * read})  # an MLP without biases maps 0 to 0
        return tuple(inside.values(point, edits=edits) for edits in (ap.Edits(), by_output, by_input))

    plain, by_output, by_input = asked(llama, zero)
    assert torch.equal(by_output, by_input)
    assert not torch.allclose(plain, by_output)


def test_an_edit_can_replace_a_gradient(llama: ap.Explainer) -> None:
    def halved(inside: ap.Inside) -> tuple[ap.Gradients, ap.Gradients]:
        point = inside.embeddings()[None]
        half = ap.Edits(outputs={"model.embed_tokens": lambda _, __, output: (output + output.detach()) / 2})
        return inside.gradients(point), inside.gradients(point, edits=half)

    plain, half = asked(llama, halved)
    assert torch.equal(plain.values, half.values)
    assert torch.allclose(plain.prompt, 2 * half.prompt)


def test_gradients_of_modules_are_those_of_finite_differences() -> None:
    """On GPT-2, which computes nothing in fp32."""
    names = ["transformer.h.0.attn.c_attn", "transformer.h.1.mlp", "transformer.wte"]

    def slopes(inside: ap.Inside) -> None:
        point = inside.embeddings()[None]
        found = inside.module_gradients(point, names)
        for name in names:
            gradient, activation = found.gradients[0][name], found.activations[0][name]
            draw = torch.Generator().manual_seed(0)
            step = 1e-5 * torch.randn(activation.shape, generator=draw, dtype=activation.dtype)

            def moved(_: nn.Module, __: Tensor | None, own: Tensor, *, by: Tensor) -> Tensor:
                return own + by

            sides = [
                inside.values(point, edits=ap.Edits(outputs={name: partial(moved, by=side * step)})) for side in (1, -1)
            ]
            expected = ((sides[0] - sides[1]) / 2)[0].detach()
            assert torch.allclose((gradient * step).flatten(1).sum(1), expected, rtol=1e-5, atol=1e-12), name

    with ap.Explainer((tiny.model("gpt2"), tiny.tokenizer()), progress=False) as explainer:
        asked(explainer, slopes)


def test_given_activations_take_the_place_of_the_models_own(llama: ap.Explainer) -> None:
    name = "model.layers.0"

    def replaced(inside: ap.Inside) -> None:
        point, names = inside.embeddings()[None], [name, "model.layers.1"]
        own = inside.module_gradients(point, names)
        same = inside.module_gradients(0 * point, names, given=own.activations)
        assert torch.allclose(own.values, same.values)
        assert not same.gradients[0][name].any()  # nothing flows past the later layer
        assert torch.allclose(own.gradients[0]["model.layers.1"], same.gradients[0]["model.layers.1"])
        both = {name: torch.cat([own.activations[0][name]] * 3) for name in names}
        many = inside.module_gradients(point.expand(3, -1, -1), names, given=[both])
        assert torch.allclose(
            many.gradients[0]["model.layers.1"], own.gradients[0]["model.layers.1"].expand(-1, 3, -1, -1)
        )

    asked(llama, replaced)


def test_edits_belong_to_one_run(llama: ap.Explainer) -> None:
    """Another thread that scores with the model meanwhile does not see them."""
    expected = llama.attribute(PROMPT, TARGET, method="ablation").values
    others: list[Any] = []

    def meanwhile(module: nn.Module, read: Tensor | None, output: Tensor) -> Tensor:
        thread = threading.Thread(
            target=lambda: others.append(
                ap.Explainer((tiny.model(), tiny.tokenizer()), progress=False).attribute(
                    PROMPT, TARGET, method="ablation"
                )
            )
        )
        thread.start()
        thread.join(60)
        return 0 * output

    edits = ap.Edits(outputs={"model.layers.0.mlp": meanwhile})
    asked(llama, lambda inside: inside.values(inside.embeddings()[None], edits=edits))
    assert others
    assert abs(others[0].values - expected).max() < 1e-12


def stop(*_: Any) -> Tensor:
    raise KeyboardInterrupt


def fail(*_: Any) -> Tensor:
    raise ValueError("in an edit")


@pytest.mark.parametrize("edit", [stop, fail])
@pytest.mark.parametrize(
    "ask",
    [
        lambda inside, edits: inside.values(inside.embeddings()[None], edits=edits),
        lambda inside, edits: inside.gradients(inside.embeddings()[None], edits=edits),
        lambda inside, edits: inside.trace(hidden=True, attentions=True, edits=edits),
    ],
    ids=["values", "gradients", "trace"],
)
def test_a_failure_in_the_middle_changes_nothing(edit: Any, ask: Any) -> None:
    model = tiny_copy().train()
    edits = ap.Edits(outputs={"model.layers.1.mlp": edit})
    with unchanged(model), ap.Explainer((model, tiny.tokenizer()), progress=False) as explainer:
        with pytest.raises((KeyboardInterrupt, ValueError)):
            asked(explainer, lambda inside: ask(inside, edits))
        explainer.attribute(PROMPT, TARGET)


def test_a_hundred_runs_leave_no_hook_and_no_tensor() -> None:
    model = tiny_copy()

    def count() -> int:
        gc.collect()
        return sum(isinstance(thing, Tensor) for thing in gc.get_objects())

    with unchanged(model), ap.Explainer((model, tiny.tokenizer()), progress=False) as explainer:
        asked(explainer, everything)
        before = count()
        for _ in range(100):
            asked(explainer, everything)
        assert count() <= before + 5


# --- memory, prefixes ------------------------------------------------------------------------------------------------


def test_the_memory_budget_decides_how_many_prompts_are_read_at_once() -> None:
    sizes: list[tuple[int, bool]] = []

    def twelve(inside: ap.Inside) -> ap.Gradients:
        return inside.gradients(torch.linspace(0.5, 1, 12, dtype=torch.float64)[:, None, None] * inside.embeddings())

    found = []
    for budget in (2**30, 2**20, 2**10):
        with ap.Explainer((tiny.model(), tiny.tokenizer()), progress=False, memory_budget=budget) as explainer:
            real = explainer.session.forward
            explainer.session.forward = (  # type: ignore[method-assign]
                lambda batch, recompute=False, real=real: (
                    sizes.append((len(batch.prompts), recompute)) or real(batch, recompute=recompute)
                )
            )
            sizes.clear()
            found.append(asked(explainer, twelve))
            seen = {*sizes}
            assert seen == {2**30: {(12, False)}, 2**20: seen, 2**10: {(1, True)}}[budget]
            assert sum(rows for rows, _ in sizes) == 12
            assert budget != 2**20 or 1 < len(sizes) < 12
    for other in found[1:]:
        assert torch.allclose(found[0].prompt, other.prompt, atol=1e-12)
        assert torch.allclose(found[0].values, other.values)


def test_tokens_before_the_first_feature_are_read_once(llama: ap.Explainer) -> None:
    prompt = ap.Template("These words are fixed. {a} and {b}", values={"a": "one", "b": "two"})

    def both(inside: ap.Inside) -> tuple[ap.Gradients, ap.Gradients, int]:
        points = torch.linspace(0.5, 1, 5, dtype=torch.float64)[:, None, None] * inside.embeddings()
        points[:, : inside.fixed] = inside.embeddings()[: inside.fixed]
        return inside.gradients(points), inside.gradients(points[:, inside.fixed :]), inside.fixed

    method = Ask(both)
    result = llama.attribute(prompt, TARGET, method=method)
    whole, after, fixed = method.found
    assert fixed == len("These words are fixed. ")
    assert torch.allclose(whole.values, after.values)
    assert torch.allclose(whole.prompt[:, :, fixed:], after.prompt)
    length, following = len("These words are fixed. one and two"), len(TARGET) - 1
    tokens = 5 * (length + following) + fixed + 5 * (length - fixed + following)
    assert (result.provenance.evaluations, result.provenance.forwarded_tokens) == (10, tokens)
    cost = llama.estimate(prompt, TARGET, method=method)
    assert (cost.evaluations, cost.forwarded_tokens) == (10, tokens)


def test_a_target_function_that_is_not_additive_is_found_out(llama: ap.Explainer) -> None:
    class Twice:
        """Claims what it inherited."""

        needs, additive = ap.Needs.LOG_PROBS, True

        def __call__(self, scores: ap.Scores, target: ap.Target) -> Tensor:
            assert scores.log_probs is not None
            return torch.cat([2 * scores.log_probs.sum(1, keepdim=True), scores.log_probs], 1)

    with pytest.raises(ap.PluginError, match="is called additive, but"):
        asked(llama, everything, target_fn=Twice())
