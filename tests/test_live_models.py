"""Models that change between runs: every run gives the numbers of one-row forwards of the model as it is then."""

from __future__ import annotations

import copy
import functools
import threading
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from torch import nn
from transformers import PreTrainedModel

import apportion as ap
from apportion.testing import tiny
from changes import Around
from checked import PROMPT, TARGET, Checked, with_states


@pytest.fixture
def model() -> PreTrainedModel:
    return copy.deepcopy(tiny.model())


class Steering:
    """A steering vector as people write them: an object whose method is a hook."""

    def __init__(self, strength: float, place: slice | int = slice(None)) -> None:
        self.strength, self.place, self.lock = strength, place, threading.Lock()

    def hook(self, module: nn.Module, args: object, output: torch.Tensor) -> torch.Tensor:
        with self.lock:
            return self(module, args, output)

    def __call__(self, module: nn.Module, args: object, output: Any) -> Any:
        def steered(states: torch.Tensor) -> torch.Tensor:
            states = states.clone()
            states[:, self.place] += self.strength
            return states

        return with_states(output, steered)


class SteeringWrapper(Around):
    """A module around a layer, with an attribute."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__(inner)
        self.settings, self.plain = SimpleNamespace(strength=0.0), 1.0

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        found = self.inner(*args, **kwargs)
        return found * self.plain + self.settings.strength


def replaced_forward(model: PreTrainedModel) -> None:
    mlp = model.model.layers[0].mlp
    old = mlp.forward
    mlp.forward = lambda x: old(x) * 5


def attention_scaling(model: PreTrainedModel) -> None:
    model.model.layers[1].self_attn.scaling *= 3


def variance_epsilon(model: PreTrainedModel) -> None:
    model.model.norm.variance_epsilon = 2.0


def another_module(model: PreTrainedModel) -> None:
    model.model.layers[0].mlp = copy.deepcopy(model.model.layers[1].mlp)


def another_activation(model: PreTrainedModel) -> None:
    model.model.layers[0].mlp.act_fn = nn.Tanh()


def fewer_layers(model: PreTrainedModel) -> None:
    model.config.num_hidden_layers = 1


def bound_method(model: PreTrainedModel) -> None:
    model.model.layers[0].mlp.register_forward_hook(Steering(0.5).hook)


def callable_object(model: PreTrainedModel) -> None:
    model.model.layers[0].register_forward_hook(Steering(0.5))


def first_place(model: PreTrainedModel) -> None:
    model.model.layers[0].mlp.register_forward_hook(Steering(0.5, 1))


def last_place(model: PreTrainedModel) -> None:
    model.model.layers[0].mlp.register_forward_hook(Steering(0.5, -1))


def hook_on_the_base(model: PreTrainedModel) -> None:
    model.model.norm.register_forward_pre_hook(lambda module, args: (args[0] * 2 + 1,))


def softer_head(model: PreTrainedModel) -> None:
    model.lm_head.register_forward_hook(lambda module, args, output: output / 2)


CHANGES = [
    replaced_forward, attention_scaling, variance_epsilon, another_module, another_activation, fewer_layers,
    bound_method, callable_object, first_place, last_place, hook_on_the_base, softer_head,
]  # fmt: skip


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_between_runs_counts(change: Callable[[PreTrainedModel], None], model: PreTrainedModel) -> None:
    checked = Checked(model)
    before = checked.run()
    change(model)
    after = checked.run()
    assert not np.allclose(before.values, after.values, atol=1e-6), "the change changes nothing, so the test neither"
    assert np.allclose(after.values, Checked(model).run().values, atol=1e-9)


@pytest.mark.parametrize("place", [1, 3, slice(30, 31), -1, slice(2, None)])
def test_hooks_that_look_at_places_are_found_out(place: int | slice, model: PreTrainedModel) -> None:
    """Rows lie elsewhere in packed batches, and end elsewhere in padded ones."""
    steering = Steering(0.0, place)
    checked = Checked(model)
    assert not checked.run().provenance.notes
    handle = model.model.layers[0].mlp.register_forward_hook(steering.hook)
    (note,) = checked.run().provenance.notes
    assert "code of your own (a hook on model.layers.0.mlp)" in note
    steering.strength = 0.5
    notes = checked.run("ab cd ef gh ij").provenance.notes
    assert any("other numbers in such a batch; rows were scored" in note for note in notes) == (place == -1)
    handle.remove()
    assert not checked.run().provenance.notes


def test_a_wrapper_with_attributes_counts(model: PreTrainedModel) -> None:
    wrapper = model.model.layers[0].mlp = SteeringWrapper(model.model.layers[0].mlp)
    checked = Checked(model)
    values = [checked.run().values]
    wrapper.settings.strength = 0.5
    values.append(checked.run().values)
    wrapper.plain = 3.0
    values.append(checked.run().values)
    assert not any(np.allclose(a, b, atol=1e-6) for a, b in pairwise(values))


def test_a_patched_class_counts(model: PreTrainedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    checked = Checked(model)
    before = checked.run()
    mlp = type(model.model.layers[0].mlp)
    old = mlp.forward
    monkeypatch.setattr(mlp, "forward", lambda self, x: old(self, x) * 5)
    assert not np.allclose(before.values, checked.run().values, atol=1e-6)


def test_a_patched_function_of_the_models_code_counts(model: PreTrainedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    checked = Checked(model)
    before = checked.run()
    code = sys.modules[type(model).__module__]
    old = code.apply_rotary_pos_emb
    monkeypatch.setattr(code, "apply_rotary_pos_emb", lambda q, k, *rest, **more: old(q * 2, k, *rest, **more))
    assert not np.allclose(before.values, checked.run().values, atol=1e-6)


def test_code_that_was_written_for_single_rows_is_found_out(model: PreTrainedModel) -> None:
    """A hook that looks at the first row of a batch alone."""

    def first_row(module: nn.Module, args: object, output: torch.Tensor) -> torch.Tensor:
        return torch.cat([output[:1] + 0.5, output[1:]])

    for module in (model.model.layers[0].mlp, model.lm_head):
        handle = module.register_forward_hook(first_row)
        Checked(model).run("ab cd ef gh")
        handle.remove()


LATER = {"place": 0, "factor": 0.0}


def steered(states: torch.Tensor) -> torch.Tensor:
    """What a user's code does to states; nothing, until it is switched on."""
    states = states.clone()
    states[:, LATER["place"]] += LATER["factor"]
    return states


def class_patch(model: PreTrainedModel, patch: pytest.MonkeyPatch) -> None:
    mlp = type(model.model.layers[0].mlp)
    old = mlp.forward
    patch.setattr(mlp, "forward", lambda self, x: steered(old(self, x)))


def top_class_patch(model: PreTrainedModel, patch: pytest.MonkeyPatch) -> None:
    old = type(model).forward

    def forward(self: Any, *args: Any, **kwargs: Any) -> Any:
        found = old(self, *args, **kwargs)
        found.logits = found.logits * (1 + LATER["factor"])
        return found

    patch.setattr(type(model), "forward", functools.wraps(old)(forward))


def exchange_activation(model: PreTrainedModel, function: Callable[[torch.Tensor], torch.Tensor]) -> None:
    mlp = model.model.layers[0].mlp
    del mlp.act_fn  # a module cannot be replaced by a function
    mlp.act_fn = function


def partial_activation(model: PreTrainedModel, patch: pytest.MonkeyPatch) -> None:
    def silu(settings: dict[str, float], x: torch.Tensor) -> torch.Tensor:
        return steered(nn.functional.silu(x))

    exchange_activation(model, functools.partial(silu, LATER))


def wrapped_activation(model: PreTrainedModel, patch: pytest.MonkeyPatch) -> None:
    exchange_activation(model, functools.wraps(nn.functional.silu)(lambda x: steered(nn.functional.silu(x))))


def global_hook(model: PreTrainedModel, patch: pytest.MonkeyPatch) -> None:
    hook = lambda module, args, output: output * (1 + LATER["factor"]) if module is model.lm_head else output  # noqa: E731
    handle = nn.modules.module.register_module_forward_hook(hook)
    patch.setattr(nn.modules.module, "_global_forward_hooks", dict(nn.modules.module._global_forward_hooks))
    handle.remove()


@pytest.mark.parametrize("change", [class_patch, top_class_patch, partial_activation, wrapped_activation, global_hook])
def test_code_that_does_nothing_at_first_is_not_trusted(
    change: Callable[..., None], model: PreTrainedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody sees that it is switched on later, and looks at a place."""
    monkeypatch.setitem(LATER, "factor", 0.0)
    change(model, monkeypatch)
    checked = Checked(model)
    checked.run()
    for place in (1, 3):
        monkeypatch.setitem(LATER, "place", place)
        monkeypatch.setitem(LATER, "factor", 0.5)
        found = checked.run("ab cd ef gh ij")
    assert any("code of your own" in note for note in found.provenance.notes)


def test_weights_that_hide_what_a_head_does_are_not_trusted() -> None:
    config = transformers.GraniteConfig(
        vocab_size=260, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, logits_scaling=8.0, tie_word_embeddings=False, bos_token_id=256, eos_token_id=257,
        pad_token_id=257,
    )  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = transformers.AutoModelForCausalLM.from_config(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(5 if parameter.ndim > 1 else 1)
    trained = copy.deepcopy(model.state_dict())
    torch.nn.init.zeros_(model.lm_head.weight)
    checked = Checked(model)
    checked.run()
    model.load_state_dict(trained)
    checked.run()


def test_what_a_run_has_scored_is_not_continued_with_another_model(model: PreTrainedModel) -> None:
    checked = Checked(model)
    found = checked.run(method="kernel_shap", budget=6)
    model.model.layers[0].mlp.register_forward_hook(Steering(0.5))
    with pytest.raises(ap.InputError, match="The model has changed since this result was made"):
        checked.explainer.refine(found, budget=8)
    with pytest.raises(ap.InputError, match="The model has changed since this result was made"):
        checked.explainer.evaluate(found)


def test_a_model_that_draws_random_numbers_is_refused_for_that(model: PreTrainedModel) -> None:
    model.model.norm.register_forward_hook(lambda module, args, output: output + torch.randn_like(output))
    with pytest.raises(ap.ModelError, match="gives other logits each time"):
        ap.Explainer((model, tiny.tokenizer()))


def test_interrupts_leave_a_model_training(model: PreTrainedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the middle of switching dropout off, and of switching it on again."""
    from apportion_backends.torch import modes

    model.train()
    before = modes._HELD.give_back
    calls: list[int] = []

    def interrupted(modules: Any, holder: object) -> None:
        calls.append(1)
        if len(calls) == 1:
            before(list(modules)[:5], holder)
            raise KeyboardInterrupt
        before(modules, holder)

    monkeypatch.setattr(modes._HELD, "give_back", interrupted)
    with pytest.raises(KeyboardInterrupt), modes.scoring_mode(model):
        assert not any(module.training for module in model.modules())
    assert all(module.training for module in model.modules())


def test_vocabulary_dtype_and_mode_are_those_of_the_moment(model: PreTrainedModel) -> None:
    checked = Checked(model)
    checked.run()
    model.resize_token_embeddings(300, mean_resizing=False)
    checked.run()
    assert checked.explainer.session.info.vocabulary == 300
    model.to(torch.float32).train()
    found = checked.run()
    assert model.training
    assert (found.provenance.dtype, checked.explainer.session.info.dtype) == ("float32", "float32")


def test_a_model_that_no_longer_scores_is_refused_before_scoring(model: PreTrainedModel) -> None:
    checked = Checked(model)
    model.model.norm.register_forward_hook(lambda module, args, output: output + output.mean(1, keepdim=True))
    with pytest.raises(ap.ModelError, match="not a causal language model"):
        checked.explainer.attribute(PROMPT, TARGET, method="ablation")


@pytest.mark.parametrize("change", CHANGES)
def test_the_cache_never_answers_for_another_state(
    change: Callable[[PreTrainedModel], None], model: PreTrainedModel, tmp_path: Path
) -> None:
    checked = Checked(model, cache=tmp_path / "scores.sqlite")
    before = checked.run()
    change(model)
    after = checked.run()
    assert np.allclose(after.values, Checked(model, cache=tmp_path / "scores.sqlite").run().values, atol=1e-9)
    assert np.allclose(after.values, Checked(model).run().values, atol=1e-9)
    assert not np.allclose(before.values, after.values, atol=1e-6)


def test_the_cache_knows_objects_that_a_module_holds(model: PreTrainedModel, tmp_path: Path) -> None:
    wrapper = model.model.layers[0].mlp = SteeringWrapper(model.model.layers[0].mlp)
    wrapper.settings = Steering(0.0)
    checked = Checked(model, cache=tmp_path / "scores.sqlite")
    before = checked.run()
    wrapper.settings.strength = 0.5
    assert not np.allclose(before.values, checked.run().values, atol=1e-6)


class TestAdapters:
    @pytest.fixture
    def adapted(self, model: PreTrainedModel) -> Any:
        peft = pytest.importorskip("peft")
        torch.manual_seed(0)
        config = peft.LoraConfig(r=2, target_modules=["q_proj", "down_proj"], init_lora_weights=False)
        adapted = peft.get_peft_model(model, config)
        adapted.add_adapter("other", config)
        return adapted.double().eval()

    def test_models_of_peft_are_accepted(self, adapted: Any) -> None:
        checked = Checked(adapted.get_base_model(), scored_by=adapted)
        values = [checked.run().values]
        with adapted.disable_adapter():
            values.append(checked.run().values)
        values.append(checked.run().values)
        adapted.set_adapter("other")
        values.append(checked.run().values)
        for layer in adapted.modules():
            if hasattr(layer, "scaling") and isinstance(layer.scaling, dict):
                layer.scaling["other"] *= 2
        values.append(checked.run().values)
        assert np.allclose(values[0], values[2], atol=1e-9)
        for i, j in ((0, 1), (2, 3), (3, 4)):
            assert not np.allclose(values[i], values[j], atol=1e-4)

    def test_switching_probes_once(self, adapted: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        from apportion_backends.torch import structure

        adapted.set_adapter("default")
        checked, probes = Checked(adapted.get_base_model(), scored_by=adapted), []
        probe = structure.probe
        monkeypatch.setattr(structure, "probe", lambda model: probes.append(1) or probe(model))
        for name in ("default", "other") * 3:
            adapted.set_adapter(name)
            assert checked.explainer.session.layout.packing
            checked.run()
        assert len(probes) == 1

    def test_adapters_that_begin_at_tokens_are_refused(self, model: PreTrainedModel) -> None:
        peft = pytest.importorskip("peft")
        config = peft.LoraConfig(
            task_type="CAUSAL_LM", r=2, target_modules=["q_proj"], alora_invocation_tokens=[101, 102]
        )
        with pytest.raises(ap.ModelError, match="begin at invocation tokens"):
            ap.Explainer((peft.get_peft_model(model, config), tiny.tokenizer()))

    def test_virtual_tokens_are_refused(self, model: PreTrainedModel) -> None:
        peft = pytest.importorskip("peft")
        config = peft.PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=3)
        with pytest.raises(ap.ModelError, match="virtual tokens"):
            ap.Explainer((peft.get_peft_model(model, config), tiny.tokenizer()))


def test_one_row_with_nan_leaves_its_neighbours_alone(model: PreTrainedModel) -> None:
    bad = tiny.tokenizer()("#", add_special_tokens=False)["input_ids"][0]
    explainer = ap.Explainer((model, tiny.tokenizer()), progress=False)
    expected = explainer.attribute("ab cd ef", TARGET, method="ablation").values
    with torch.no_grad():
        model.get_input_embeddings().weight[bad] = torch.nan
    for at_once in (1, 4):
        good, broken, again = explainer.attribute_many(
            ["ab cd ef", "ab # ef", "ab cd eg"], target=TARGET, method="ablation", on_error="return", at_once=at_once
        )
        assert np.allclose(good.values, expected, atol=1e-9)
        assert isinstance(broken, ap.ScoreError)
        assert isinstance(again, ap.Attribution)


@pytest.mark.parametrize("family", ["llama", "bloom", "gpt2"])
def test_threads_may_score_a_model_that_is_training(family: str) -> None:
    """Dropout is off as long as anybody scores, and on again when the last one has finished."""
    model = copy.deepcopy(tiny.model(family))
    for module in model.modules():
        if isinstance(module, nn.Linear):
            module.register_forward_hook(lambda module, args, output: output * 2 if module.training else output)
    model.train()
    checked = [Checked(model) for _ in range(3)]
    expected = Checked(model).run().values
    states = checked[0].explainer.session.trace((1, 2, 3), (4,), hidden=True).hidden[-1]
    failures: list[BaseException] = []

    def work(one: Checked) -> None:
        try:
            for _ in range(4):
                found = one.explainer.attribute(PROMPT, TARGET, method="ablation").values
                assert np.allclose(found, expected, atol=1e-9)
                assert torch.equal(one.explainer.session.trace((1, 2, 3), (4,), hidden=True).hidden[-1], states)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(one,)) for one in checked]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    assert all(module.training for module in model.modules())


@pytest.mark.parametrize("family", ["llama", "bloom"])
def test_threads_may_share_an_explainer(family: str) -> None:
    """What one run keeps of its rows is replaced by another one's meanwhile."""
    explainer = ap.Explainer((copy.deepcopy(tiny.model(family)), tiny.tokenizer()), progress=False, memory_budget=2**20)
    prompts = [f"ab{n} cd ef gh ij{n} kl mn op qr st uv {n}" for n in range(4)]
    options = {"target": TARGET, "method": "kernel_shap", "budget": 200}
    expected = [explainer.attribute(prompt, **options).values for prompt in prompts]
    failures: list[BaseException] = []

    def work(number: int) -> None:
        try:
            for _ in range(3):
                assert np.allclose(explainer.attribute(prompts[number], **options).values, expected[number], atol=1e-6)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(len(prompts))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
