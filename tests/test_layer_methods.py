"""Methods at layers, and DeepLIFT: their definitions by brute force, completeness, names of modules, costs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import apportion as ap
from apportion.testing import tiny
from apportion_plugins.methods.spread import error_of_mean

PROMPT, TARGET, BASELINE = "abcdefg", " xyz", 0
TEXT = ap.Text(PROMPT, by="tokens")
LISTS = {
    "embeddings": ["model.embed_tokens"],
    "one": ["model.layers.0.self_attn.v_proj"],
    "several": [
        "model.layers.0.self_attn.k_proj", "model.layers.1.self_attn.k_proj", "model.layers.0.mlp", "model.layers.1.mlp"
    ],
}  # fmt: skip
PATTERNS = {"embeddings": None, "one": LISTS["one"][0], "several": ["model.layers.*.self_attn.k_proj", "**.mlp"]}


class Plain:
    """A model read without apportion: log-probabilities of the target's tokens, and what modules return."""

    def __init__(self, model: nn.Module, prompt: Sequence[int], target: Sequence[int]) -> None:
        self.model, self.prompt, self.target = model, list(prompt), list(target)

    def __call__(self, prompt: Sequence[int] | None = None) -> Tensor:
        """Of the whole target, then of each token."""
        ids = torch.tensor([[*(self.prompt if prompt is None else prompt), *self.target[:-1]]])
        logits = self.model(input_ids=ids, use_cache=False).logits[0, -len(self.target) :]
        each = logits.double().log_softmax(-1).gather(1, torch.tensor(self.target)[:, None])[:, 0]
        return torch.cat([each.sum()[None], each])

    def activations(self, names: Sequence[str], prompt: Sequence[int] | None = None) -> dict[str, Tensor]:
        """What modules return, in the graph."""
        found: dict[str, Tensor] = {}

        def keep(name: str) -> Callable[..., None]:
            return lambda module, read, output: found.__setitem__(name, output)

        with self.hooked({name: keep(name) for name in names}):
            self(prompt)
        return {name: one.detach() for name, one in found.items()}

    @contextmanager
    def hooked(self, hooks: Mapping[str, Callable[..., object]]) -> Iterator[None]:
        with ExitStack() as stack:
            for name, hook in hooks.items():
                stack.callback(self.model.get_submodule(name).register_forward_hook(hook).remove)
            yield

    def slopes(self, given: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Gradients of all outputs with respect to what modules return, which is given; ``Float[K, L, D]``."""
        leaves = {name: one.clone().requires_grad_() for name, one in given.items()}
        with self.hooked({name: lambda m, read, out, leaf=leaf: leaf for name, leaf in leaves.items()}):
            values = self()
        rows = [torch.autograd.grad(v, list(leaves.values()), retain_graph=True, allow_unused=True) for v in values]
        return {
            name: torch.stack([torch.zeros_like(leaf) if row[i] is None else row[i] for row in rows])[:, 0]
            for i, (name, leaf) in enumerate(leaves.items())
        }


@pytest.fixture(scope="module")
def plain(explainer: ap.Explainer) -> Plain:
    encode = explainer.session.tokenizer
    return Plain(tiny.model(), encode(PROMPT)["input_ids"], encode(TARGET)["input_ids"])


def along(plain: Plain, names: Sequence[str], shares: Sequence[float], weights: Sequence[float]) -> dict[str, Tensor]:
    """Scores of modules that move together, ``Float[K, L]`` for each: Σ weight · gradient · change."""
    start = plain.activations(names, [BASELINE] * len(plain.prompt))
    end = plain.activations(names)
    total = {name: torch.zeros(()) for name in names}
    for share, weight in zip(shares, weights, strict=True):
        given = {name: start[name] + share * (end[name] - start[name]) for name in names}
        for name, slope in plain.slopes(given).items():
            total[name] = total[name] + weight * (slope * (end[name] - start[name])).sum(-1)
    return total


def scores_in(result: ap.Attribution) -> Tensor:
    """Values of modules as ``Float[M, K, F]``."""
    whole, each = (np.array(result.extras[name]) for name in ("module_values", "module_token_values"))
    return torch.tensor(np.concatenate([whole[:, None], each], axis=1))


def gauss() -> tuple[np.ndarray, np.ndarray]:
    places, weights = np.polynomial.legendre.leggauss(5)
    return (1 + places) / 2, weights / 2


@pytest.mark.parametrize("which", LISTS)
@pytest.mark.parametrize("joint", [True, False])
def test_integrated_gradients_by_definition(explainer: ap.Explainer, plain: Plain, which: str, joint: bool) -> None:
    names, length = LISTS[which], len(PROMPT)
    options = {"layers": PATTERNS[which], "joint": joint, "baseline": BASELINE, "steps": 5}
    result = explainer.attribute(TEXT, TARGET, method="layer_integrated_gradients", **options)
    assert result.extras["modules"] == names
    groups = [names] if joint else [[name] for name in names]
    expected = {name: one for group in groups for name, one in along(plain, group, *gauss()).items()}
    found = scores_in(result)
    assert torch.allclose(found, torch.stack([expected[name][:, :length] for name in names]), atol=1e-8)
    assert torch.allclose(torch.tensor(result.values), found[:, 0].sum(0), atol=1e-8)
    rest = sum(float(expected[name][0, length:].sum()) for name in names)
    assert result.extras["target_positions"] == pytest.approx(rest, abs=1e-8)
    # What scores add up to: the change of the score that the modules make.
    low = [plain_at_baseline(plain, group) for group in groups]
    assert np.array(result.extras["baseline_value"]).reshape(len(groups), -1) == pytest.approx(np.array(low))
    missing = np.array(result.extras["convergence_delta"]).reshape(len(groups), -1)[:, 0].sum()
    end = float(plain()[0].detach())
    change = sum(end - one[0] for one in low)
    assert result.values.sum() + rest - change == pytest.approx(missing, abs=1e-8)
    assert result.full_value == pytest.approx(end)
    steps = 5 + 1
    assert result.provenance.evaluations == 2 + steps * len(groups)
    assert result.provenance.forwarded_tokens == result.provenance.evaluations * (length + len(TARGET) - 1)


def plain_at_baseline(plain: Plain, names: Sequence[str]) -> list[float]:
    start = plain.activations(names, [BASELINE] * len(plain.prompt))
    with plain.hooked({name: lambda m, read, out, one=one: one for name, one in start.items()}):
        return plain().tolist()


def test_the_whole_of_a_layer_is_complete_for_the_prompt_and_its_baseline(explainer: ap.Explainer) -> None:
    """Everything passes through a layer, so its start is the baseline itself; so it is for the embeddings."""
    for layers in (None, "model.layers.0"):
        for method in ("layer_integrated_gradients", "layer_deeplift"):
            result = explainer.attribute(TEXT, TARGET, method=method, layers=layers, baseline="mean")
            whole = explainer.attribute(TEXT, TARGET, method="integrated_gradients", baseline="mean")
            low = np.array(result.extras["baseline_value"]).ravel()[0]
            assert low == pytest.approx(whole.extras["baseline_value"][0])
    first = explainer.attribute(TEXT, TARGET, method="layer_integrated_gradients", baseline="mean")
    assert first.values == pytest.approx(whole.values, abs=1e-8)
    assert abs(first.extras["convergence_delta"][0]) < 1e-6


@pytest.mark.parametrize("which", LISTS)
def test_gradient_x_activation_by_definition(explainer: ap.Explainer, plain: Plain, which: str) -> None:
    """Total gradients: those of an early module flow through later ones."""
    names = LISTS[which]
    result = explainer.attribute(TEXT, TARGET, method="layer_gradient_x_activation", layers=PATTERNS[which])
    own = plain.activations(names)
    expected = [(plain.slopes({name: own[name]})[name] * own[name]).sum(-1)[:, : len(PROMPT)] for name in names]
    assert torch.allclose(scores_in(result), torch.stack(expected), atol=1e-8)
    assert (result.provenance.evaluations, result.provenance.forwarded_tokens) == (1, len(PROMPT) + len(TARGET) - 1)


@pytest.mark.parametrize("joint", [True, False])
def test_gradient_shap_by_definition(explainer: ap.Explainer, plain: Plain, joint: bool) -> None:
    names, samples = LISTS["several"], 3
    options = {"layers": PATTERNS["several"], "joint": joint, "baseline": BASELINE, "n_samples": samples}
    result = explainer.attribute(TEXT, TARGET, method="layer_gradient_shap", seed=4, **options)
    rng = torch.Generator().manual_seed(4)
    groups = [names] if joint else [[name] for name in names]
    drawn: dict[str, list[Tensor]] = {name: [] for name in names}
    for group in groups:
        for share in torch.rand(samples, generator=rng, dtype=torch.float64).tolist():
            for name, one in along(plain, group, [share], [1.0]).items():
                drawn[name].append(one[:, : len(PROMPT)])
    each = torch.stack([torch.stack(drawn[name]) for name in names])
    assert torch.allclose(scores_in(result), each.mean(1), atol=1e-8)
    errors = error_of_mean(each.sum(0))
    assert result.std_error == pytest.approx(errors[0].numpy(), abs=1e-8)
    assert result.token_std_error == pytest.approx(errors[1:].numpy(), abs=1e-8)
    assert result.provenance.evaluations == 2 + samples * len(groups)


def test_random_points_agree_with_the_integral(explainer: ap.Explainer) -> None:
    options = {"layers": ["model.layers.1", "model.embed_tokens"], "joint": False, "baseline": BASELINE}
    exact = explainer.attribute(TEXT, TARGET, method="layer_integrated_gradients", **options)
    drawn = explainer.attribute(TEXT, TARGET, method="layer_gradient_shap", n_samples=200, **options)
    assert (np.abs(drawn.values - exact.values) < 4 * drawn.std_error).all()
    assert (drawn.std_error > 0).all()
    unknown = explainer.attribute(TEXT, TARGET, method="layer_gradient_shap", n_samples=3, aggregate="l2", **options)
    assert np.isnan(unknown.std_error).all()


# --- DeepLIFT


def rescaled(plain: Plain, names: Sequence[str]) -> Callable[[nn.Module], object]:
    """Hooks that give activation functions the slopes between two passes, which were read before."""
    acts = [name for name, module in plain.model.named_modules() if name.endswith("act_fn")]
    assert len(acts) == 2
    read: dict[str, list[tuple[Tensor, Tensor]]] = {name: [] for name in acts}

    def keep(name: str) -> Callable[..., None]:
        return lambda module, args, output: read[name].append((args[0].detach(), output.detach()))

    with plain.hooked({name: keep(name) for name in acts}):
        plain([BASELINE] * len(plain.prompt))
        plain()

    def scaled(name: str) -> Callable[..., Tensor]:
        (low, low_out), (high, high_out) = read[name]
        same = (high - low).abs() < 1e-10
        slope = torch.where(same, 0, (high_out - low_out) / (high - low))
        return lambda m, args, out: torch.where(same, out, out.detach() + slope * (args[0] - args[0].detach()))

    return {name: scaled(name) for name in acts}


@pytest.mark.parametrize("which", ["embeddings", "several"])
def test_deeplift_by_definition(explainer: ap.Explainer, plain: Plain, which: str) -> None:
    names = LISTS[which]
    hooks = rescaled(plain, names)
    end, start = plain.activations(names), plain.activations(names, [BASELINE] * len(PROMPT))
    with plain.hooked(hooks):
        slopes = {name: plain.slopes({name: end[name]})[name] for name in names}
    expected = torch.stack([(slopes[name] * (end[name] - start[name])).sum(-1)[:, : len(PROMPT)] for name in names])
    result = explainer.attribute(TEXT, TARGET, method="layer_deeplift", layers=PATTERNS[which], baseline=BASELINE)
    assert torch.allclose(scores_in(result), expected, atol=1e-8)
    assert (result.provenance.evaluations, result.provenance.forwarded_tokens) == (2, 2 * (len(PROMPT) + 3))
    if which == "embeddings":
        whole = explainer.attribute(TEXT, TARGET, method="deeplift", baseline=BASELINE)
        assert whole.values == pytest.approx(result.values, abs=1e-8)
        assert whole.token_values == pytest.approx(result.token_values, abs=1e-8)
        assert whole.provenance.evaluations == 2
        delta = whole.values.sum() - (whole.full_value - whole.extras["baseline_value"][0])
        assert whole.extras["convergence_delta"][0] == pytest.approx(delta)
        total, change = whole.values.sum(), whole.full_value - whole.extras["baseline_value"][0]
        said = f"add up to {total:.3g}, but the score changes by {change:.3g} from the baseline to the prompt"
        for one in (whole, result):
            assert any(said in note for note in one.provenance.notes)
        plainly = explainer.attribute(TEXT, TARGET, method="deeplift", baseline=BASELINE, rule="captum")
        assert np.abs(plainly.values - whole.values).max() > 1e-3
        assert any("no activation function that is rescaled" in note for note in plainly.provenance.notes)


def test_rescaling_the_activation_function_itself(explainer: ap.Explainer) -> None:
    """Its own output has the gradient behind it, and modules before it have its slope."""
    act, gate = "model.layers.1.mlp.act_fn", "model.layers.1.mlp.gate_proj"
    both = explainer.attribute(TEXT, TARGET, method="layer_deeplift", layers=[act, gate], baseline=BASELINE)
    values = np.array(both.extras["module_values"])
    # slope × change of the input = change of the output
    assert values[0] == pytest.approx(values[1], abs=1e-8)
    assert np.abs(values).max() > 1e-3


def test_experts_keep_their_gradients() -> None:
    with ap.Explainer((tiny.model("mixtral"), tiny.tokenizer()), progress=False) as explainer:
        result = explainer.attribute(TEXT, TARGET, method="deeplift", baseline=BASELINE)
        assert any("2 of 2 activation functions keep their gradients" in note for note in result.provenance.notes)
        same = explainer.attribute(TEXT, TARGET, method="deeplift", baseline=BASELINE, rule="captum")
        assert result.values == pytest.approx(same.values, abs=1e-8)
        with pytest.raises(ap.InputError, match="called more than once in a forward pass"):
            explainer.attribute(
                TEXT, TARGET, method="layer_gradient_x_activation", layers="model.layers.0.mlp.experts.act_fn"
            )
        found = explainer.attribute(TEXT, TARGET, method="layer_gradient_x_activation", layers="**.experts")
        around = explainer.attribute(TEXT, TARGET, method="layer_gradient_x_activation", layers="model.layers.*.mlp")
        assert found.values == pytest.approx(around.values, abs=1e-8)


# --- all families, target functions, precisions


@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_gradients_are_finite_differences_in_every_family(family: str) -> None:
    """Gradient × activation, summed over all positions, is the slope of the score if a layer's output is scaled."""
    model = tiny.model(family)
    with ap.Explainer((model, tiny.tokenizer()), progress=False) as explainer:
        layer = first_layer(model)
        options = {"method": "layer_gradient_x_activation", "layers": layer}
        for target_fn in ("log_prob", "prob", "logit", "entropy"):
            result = explainer.attribute(TEXT, TARGET, target_fn=target_fn, **options)
            slope = result.values.sum() + result.extras["target_positions"]
            assert slope == pytest.approx(scaled_slope(explainer, layer, target_fn), rel=1e-2, abs=2e-6)


def first_layer(model: nn.Module) -> str:
    return next(name for name, _ in model.named_modules() if name.endswith(".0"))


def scaled_slope(explainer: ap.Explainer, layer: str, target_fn: str) -> float:
    module, step = explainer.session.model.get_submodule(layer), 1e-2
    sides = []
    for scale in (1 + step, 1 - step):

        def scaled(m: nn.Module, args: object, output: object, scale: float = scale) -> object:
            return (output[0] * scale, *output[1:]) if isinstance(output, tuple) else output * scale

        handle = module.register_forward_hook(scaled)
        with ap.Explainer((explainer.session.model, tiny.tokenizer()), progress=False) as other:
            sides.append(other.attribute(TEXT, TARGET, method="ablation", target_fn=target_fn).full_value)
        handle.remove()
    return (sides[0] - sides[1]) / (2 * step)


@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_scores_add_up_in_every_family(family: str) -> None:
    """Within 1 % of the change at 50 steps, several modules that depend on one another included."""
    model = tiny.model(family)
    with ap.Explainer((model, tiny.tokenizer()), progress=False) as explainer:
        layers = first_layer(model).removesuffix(".0") + ".*.*"
        found = explainer.attribute(
            TEXT, TARGET, method="layer_integrated_gradients", layers=layers, per_token=False, baseline="mean"
        )
        total = found.values.sum() + found.extras["target_positions"]
        change = found.full_value - found.extras["baseline_value"][0]
        assert total == pytest.approx(change, rel=0.01, abs=1e-6)
        assert abs(change) > 1e-4


def test_half_precision(explainer: ap.Explainer) -> None:
    """Activations are rounded as the model rounds them; differences between them are not rounded again."""
    options = {"method": "layer_integrated_gradients", "layers": "**.mlp", "baseline": "mean", "steps": 20}
    exact = explainer.attribute(TEXT, TARGET, **options)
    half = tiny.model("llama", torch.bfloat16)
    with ap.Explainer((half, tiny.tokenizer()), progress=False) as other:
        found = other.attribute(TEXT, TARGET, **options)
        assert np.abs(found.values - exact.values).max() < 0.1 * np.abs(exact.values).max()
        lift = other.attribute(TEXT, TARGET, method="deeplift", baseline="mean")
        wanted = explainer.attribute(TEXT, TARGET, method="deeplift", baseline="mean")
        assert np.abs(lift.values - wanted.values).max() < 0.1 * np.abs(wanted.values).max()


METHODS = (
    "layer_integrated_gradients", "layer_gradient_x_activation", "layer_gradient_shap", "layer_deeplift"
)  # fmt: skip


@pytest.mark.parametrize("method", METHODS)
def test_a_contrast_is_the_difference_of_two_targets(explainer: ap.Explainer, method: str) -> None:
    """Contributions from both passes; for targets of one token, which are read after the same prompt."""
    options = {"method": method, "layers": ["model.layers.*.self_attn.q_proj", "model.layers.1.mlp"], "seed": 3}
    one, other = (explainer.attribute(TEXT, target, target_fn="logit", **options) for target in ("x", "y"))
    both = explainer.attribute(TEXT, "x", contrast="y", target_fn="contrast_logits_diff", **options)
    assert both.values == pytest.approx(one.values - other.values, abs=1e-8)
    assert both.extras["module_values"] == pytest.approx(
        one.extras["module_values"] - other.extras["module_values"], abs=1e-8
    )


@pytest.mark.parametrize("method", [*METHODS, "deeplift"])
def test_memory_changes_nothing(method: str) -> None:
    """Points come in pieces, and a prompt that is too large for the budget is computed layer by layer."""
    rows: list[int] = []
    found = []
    for budget in (None, 400_000, 1000):
        with ap.Explainer((tiny.model(), tiny.tokenizer()), progress=False, memory_budget=budget) as explainer:
            real = explainer.session.forward

            def counted(batch: ap.EmbeddedBatch, *, recompute: bool = False, real: object = real) -> object:
                rows.append(len(batch.prompts))
                return real(batch, recompute=recompute)

            explainer.session.forward = counted
            layers = {} if method == "deeplift" else {"layers": ["model.layers.*.self_attn.q_proj", "**.mlp"]}
            rows.clear()
            found.append(explainer.attribute(TEXT, TARGET, method=method, **layers))
            assert sum(rows) == found[0].provenance.evaluations
            if "integrated" in method:
                assert max(rows) == {None: 50, 400_000: max(rows), 1000: 1}[budget]
                assert budget != 400_000 or 2 <= max(rows) <= 30
    for other in found[1:]:
        assert other.values == pytest.approx(found[0].values, abs=1e-8)
        assert other.token_values == pytest.approx(found[0].token_values, abs=1e-8)


# --- options and results


def test_names_of_modules(explainer: ap.Explainer) -> None:
    def named(layers: object) -> list[str]:
        result = explainer.attribute(TEXT, TARGET, method="layer_gradient_x_activation", layers=layers)
        return result.extras["modules"]

    assert named(None) == ["model.embed_tokens"]
    assert named("model.layers.1.mlp") == ["model.layers.1.mlp"]
    assert named(["model.layers.*.mlp", "model.layers.0.mlp"]) == ["model.layers.0.mlp", "model.layers.1.mlp"]
    assert named(["model.layers.1.mlp", "model.layers.*.mlp"]) == ["model.layers.1.mlp", "model.layers.0.mlp"]
    # An asterisk does not reach beyond a dot.
    assert named("model.layers.*") == ["model.layers.0", "model.layers.1"]
    assert named("**.[qk]_proj") == [f"model.layers.{i}.self_attn.{part}_proj" for i in (0, 1) for part in "qk"]
    assert named("model.layers.0.**.up_proj") == ["model.layers.0.mlp.up_proj"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"layers": "model.layers.*.self_atn.q_proj"}, r"matches no module .* mean 'model.layers.\*.self_attn.q_proj'"),
        ({"layers": ["**.mlp", "model.layers.2.mlp"]}, "'model.layers.2.mlp' is not a module .*Did you mean 'model."),
        ({"layers": []}, "must be the name of a module"),
        ({"layers": ["model", 5]}, "must be the name of a module"),
        ({"at": "outputs"}, "must be 'output' or 'input'"),
        ({"joint": 1}, "joint=1 must be True or False"),
        ({"aggregate": "l3"}, "No aggregator is called 'l3'"),
        ({"steps": 0}, "steps=0"),
        ({"baseline": []}, r"baseline=\[\]"),
        ({"layers": "**.mlp", "joint": False, "budget": 103}, "for each of 2 modules takes 104 evaluations"),
    ],
)
def test_mistakes_are_refused_before_the_model_runs(
    explainer: ap.Explainer, options: dict[str, object], message: str
) -> None:
    """Even where the model is to write the target."""
    ran: list[object] = []
    handle = explainer.session.model.register_forward_pre_hook(lambda *_: ran.append(None))
    try:
        assert explainer.session.layout.joint  # looks at the model again, because it has another hook
        ran.clear()
        for target in (TARGET, None):
            with pytest.raises(ap.InputError, match=message):
                explainer.attribute(TEXT, target, method="layer_integrated_gradients", **options)
    finally:
        handle.remove()
    assert not ran


def test_modules_without_scores_are_refused(explainer: ap.Explainer) -> None:
    for layers, message in (
        ("model.rotary_emb", "the same for all of them"),
        ("model.layers", "gives no tensor"),
        ("model.layers", "it is not called in a forward pass"),
        ("model", "it reads or returns something else"),
        ("lm_head", "logits are computed from its weights, without a call"),
        ("mlp", r"Did you mean '\*\*.mlp'"),
        ("1", "Did you mean 'model.layers.1'"),
        ([0, 1], "'model.layers.0' or"),
        (1, "'model.layers.1' or"),
    ):
        with pytest.raises(ap.InputError, match=message):
            explainer.attribute(TEXT, TARGET, method="layer_integrated_gradients", layers=layers)


def test_a_baseline_without_a_gradient(explainer: ap.Explainer) -> None:
    """Only its activations and value are needed; a point of a path there is refused."""

    def broken(module: object, args: tuple[torch.Tensor, ...], kwargs: dict[str, torch.Tensor]) -> None:
        states = args[0] if args else kwargs["hidden_states"]
        if states.requires_grad:
            states.register_hook(lambda slope: torch.where(states.detach() == 0, torch.nan, slope))

    options = {"baseline": "zero", "whole_prompt": True, "target": TARGET}
    handle = explainer.session.model.model.layers[0].register_forward_pre_hook(broken, with_kwargs=True)
    try:
        for method in ("layer_integrated_gradients", "layer_gradient_shap", "layer_deeplift", "deeplift"):
            assert np.isfinite(explainer.attribute(TEXT, method=method, **options).values).all()
        for method in ("layer_integrated_gradients", "integrated_gradients"):
            with pytest.raises(ap.ScoreError, match="A gradient is not finite"):
                explainer.attribute(TEXT, method=method, rule="riemann_left", **options)
    finally:
        handle.remove()


def test_modules_behind_others_that_move_are_pointed_out(explainer: ap.Explainer) -> None:
    found = explainer.attribute(TEXT, TARGET, method="layer_integrated_gradients", layers="model.layers.*")
    assert any("1 of 2 modules (model.layers.0) have scores of 0" in note for note in found.provenance.notes)
    alone = explainer.attribute(TEXT, TARGET, method="layer_integrated_gradients", layers="model.layers.*", joint=False)
    assert not any("scores of 0" in note for note in alone.provenance.notes)
    assert np.abs(alone.extras["module_values"]).max(1).min() > 1e-3


def test_what_a_module_reads(explainer: ap.Explainer) -> None:
    """One module's output is another one's input."""
    read = explainer.attribute(
        TEXT, TARGET, method="layer_integrated_gradients", layers="model.layers.0.self_attn.o_proj", at="input"
    )
    assert read.extras["modules"] == ["model.layers.0.self_attn.o_proj"]
    before = explainer.attribute(TEXT, TARGET, method="layer_integrated_gradients", layers="model.layers.0")
    after = explainer.attribute(TEXT, TARGET, method="layer_integrated_gradients", layers="model.layers.1", at="input")
    assert after.values == pytest.approx(before.values, abs=1e-9)
    assert np.abs(read.values - before.values).max() > 1e-3


def test_flattened_activations_have_positions() -> None:
    """OPT's feed-forward layers read the tokens of all prompts in one sequence."""
    with ap.Explainer((tiny.model("opt"), tiny.tokenizer()), progress=False) as explainer:
        options = {"method": "layer_integrated_gradients", "baseline": BASELINE}
        flat = explainer.attribute(TEXT, TARGET, layers="model.decoder.layers.1.activation_fn", **options)
        read = explainer.attribute(TEXT, TARGET, layers="model.decoder.layers.1.fc2", at="input", **options)
        assert flat.values == pytest.approx(read.values, abs=1e-8)
        assert abs(flat.extras["convergence_delta"][0]) < 1e-4
        assert np.abs(flat.values).max() > 1e-4


def test_dimensions_and_aggregators(explainer: ap.Explainer, tmp_path: Path) -> None:
    words, layers = ap.Text("ab cd efg"), ["model.layers.0.self_attn.k_proj", "model.layers.*.mlp"]
    options = {"method": "layer_gradient_x_activation", "layers": layers}
    kept = explainer.attribute(words, TARGET, keep_dims=True, **options)
    dims = kept.extras["module_dims"]
    assert [one.shape for one in dims] == [(3, 16), (3, 32), (3, 32)]
    for one, values in zip(dims, kept.extras["module_values"], strict=True):
        assert one.sum(1) == pytest.approx(values, abs=1e-6)
    plainly = explainer.attribute(words, TARGET, **options)
    assert plainly.values == pytest.approx(kept.values, abs=1e-12)
    assert "module_dims" not in plainly.extras
    norms = explainer.attribute(words, TARGET, aggregate="l2", **options)
    # The norm over all positions, dimensions and modules.
    assert norms.values == pytest.approx(np.sqrt((np.array(norms.extras["module_values"]) ** 2).sum(0)))
    whole = explainer.attribute(words, TARGET, per_token=False, **options)
    assert whole.values == pytest.approx(plainly.values, abs=1e-8)
    assert np.isnan(whole.token_values).all()
    assert "module_token_values" not in whole.extras
    again = ap.Attribution.load(kept.save(tmp_path / "kept.json"))
    assert np.array(again.extras["module_dims"][0]) == pytest.approx(dims[0], abs=1e-9)


def test_the_table_of_modules(explainer: ap.Explainer) -> None:
    layers = ["model.embed_tokens", "model.layers.*.mlp"]
    result = explainer.attribute(TEXT, TARGET, method="layer_gradient_x_activation", layers=layers)
    table = result.to_dataframe("modules")
    assert list(table.columns) == ["module", "layer", "part", "feature", "attribution"]
    assert len(table) == 3 * 7
    last = table.iloc[-1]
    assert (last["module"], last["layer"], last["part"]) == ("model.layers.1.mlp", 1, "model.layers.*.mlp")
    assert last["attribution"] == result.extras["module_values"][2][6]
    sums = table.groupby("feature", sort=False)["attribution"].sum()
    assert sums.to_numpy() == pytest.approx(result.values)
    with pytest.raises(ap.ResultError, match=r"no table of modules; they come with\s+method=\"layer_integrated"):
        explainer.attribute(TEXT, TARGET, method="ablation").to_dataframe("modules")


def test_estimates_know_the_cost(explainer: ap.Explainer) -> None:
    for options in ({}, {"layers": "**.mlp", "joint": False, "steps": 4}):
        cost = explainer.estimate(TEXT, TARGET, method="layer_integrated_gradients", **options)
        result = explainer.attribute(TEXT, TARGET, method="layer_integrated_gradients", **options)
        assert cost.evaluations == result.provenance.evaluations
        assert cost.forwarded_tokens == result.provenance.forwarded_tokens
    for method in ("deeplift", "layer_deeplift", "layer_gradient_shap", "layer_gradient_x_activation"):
        cost = explainer.estimate(TEXT, TARGET, method=method)
        assert cost.evaluations == {"layer_gradient_shap": 52, "layer_gradient_x_activation": 1}.get(method, 2)


def test_the_model_stays_as_it_was(explainer: ap.Explainer) -> None:
    model = explainer.session.model
    before = [len(module._forward_hooks) + len(module._forward_pre_hooks) for module in model.modules()]
    for method in (*METHODS, "deeplift"):
        explainer.attribute(TEXT, TARGET, method=method)
    assert [len(module._forward_hooks) + len(module._forward_pre_hooks) for module in model.modules()] == before
    assert all(parameter.grad is None for parameter in model.parameters())


# --- generated tokens, and models with an encoder and a decoder


@pytest.mark.parametrize("method", [*METHODS, "deeplift"])
def test_generated_tokens(explainer: ap.Explainer, method: str) -> None:
    """Target positions get the scores that otherwise belong to no feature; a token depends on earlier ones only."""
    layers = {} if method == "deeplift" else {"layers": ["model.layers.0.mlp", "model.layers.1.self_attn.k_proj"]}
    options = {"method": method, "seed": 3, **layers}
    found = explainer.attribute(TEXT, TARGET, attribute_generated=True, **options)
    own = found.token_values[:, len(PROMPT) :]
    assert own.shape == (4, 3)
    assert not np.triu(own).any()
    assert np.abs(np.tril(own, -1)).max() > 1e-4
    if method == "layer_gradient_x_activation":
        plainly = explainer.attribute(TEXT, TARGET, **options)
        assert found.values[: len(PROMPT)] == pytest.approx(plainly.values, abs=1e-9)
        assert own.sum() == pytest.approx(plainly.extras["target_positions"], abs=1e-9)
        assert found.extras["target_positions"] == 0
    if method == "layer_integrated_gradients":
        change = found.full_value - found.extras["baseline_value"][0]
        assert found.values.sum() == pytest.approx(change, abs=1e-5)


@pytest.mark.parametrize("family", tiny.SEQ2SEQ_FAMILIES)
@pytest.mark.parametrize("target", [" xy", " xyzabc"])
def test_encoders_and_decoders(family: str, target: str) -> None:
    """Also where prompt and target have the same length. Scores of a decoder are all at target positions."""
    model = tiny.model(family)
    names = [name for name, _ in model.named_modules()]
    decoder = next(name for name in names if name.endswith(".0") and "decoder." in name)
    crossing = next(name for name in names if name.endswith(("EncDecAttention.v", "encoder_attn.v_proj")))
    with ap.Explainer((model, tiny.tokenizer()), progress=False) as explainer:
        for layers, generated in ((None, False), (crossing, False), (decoder, True)):
            found = explainer.attribute(
                TEXT,
                target,
                method="layer_integrated_gradients",
                layers=layers,
                attribute_generated=generated,
                steps=100,
            )
            total = found.values.sum() + found.extras["target_positions"]
            change = found.full_value - found.extras["baseline_value"][0]
            assert total == pytest.approx(change, abs=0.05 * np.abs(found.values).sum())
            if generated:
                assert not found.values[: len(PROMPT)].any()
                assert np.abs(found.values[len(PROMPT) :]).min() > 0
            else:
                assert np.abs(found.values).min() > 0
                assert found.extras["target_positions"] == 0
        lift = explainer.attribute(TEXT, target, method="deeplift")
        same = explainer.attribute(TEXT, target, method="layer_deeplift")
        assert same.values == pytest.approx(lift.values, abs=1e-8)
