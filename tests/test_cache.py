"""The evaluation cache: the same numbers without the model, and never numbers of another model, target or file."""

from __future__ import annotations

import contextlib
import copy
import json
import os
import shutil
import sqlite3
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import apportion as ap
from apportion.cli import main
from apportion.testing import tiny
from apportion_backends.torch.checksum import model_checksum
from apportion_plugins.cache import EvaluationCache
from apportion_plugins.cache.file import CacheFile
from apportion_plugins.cache.rows import pack, unpack
from apportion_plugins.cache.store import Store
from forks import Forks

PROMPT, TARGET = "a b c d e", "xyz"


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The user's cache folder."""
    monkeypatch.setenv("APPORTION_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def default(folder: Path) -> Path:
    """The file in the user's cache folder."""
    return folder / "evaluations.sqlite3"


def explain(
    cache: bool | str | Path = True, model: Any = None, prompt: Any = PROMPT, target: Any = TARGET, **options: Any
) -> ap.Attribution:
    plugins, dtype = options.pop("plugins", ()), options.pop("dtype", None)
    pair = (model or tiny.model(), tiny.tokenizer())
    with ap.Explainer(pair, cache=cache, plugins=plugins, dtype=dtype) as explainer:
        return explainer.attribute(prompt, target, **options)


def cost(result: ap.Attribution) -> tuple[int, int]:
    """What was scored and what was recalled."""
    return result.provenance.evaluations, result.provenance.cached


def assert_same(one: ap.Attribution, other: ap.Attribution) -> None:
    assert (one.values == other.values).all()
    assert (one.token_values == other.token_values).all()
    assert (one.base_value, one.full_value) == (other.base_value, other.full_value)
    if one.std_error is not None:
        assert other.std_error is not None
        assert np.array_equal(one.std_error, other.std_error, equal_nan=True)


def asides(folder: Path) -> list[Path]:
    return [p for p in sorted(folder.iterdir()) if "set-aside" in p.name and not p.name.endswith(("-wal", "-shm"))]


# --- the same numbers ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("options", [{}, {"method": "permutation", "budget": 24}, {"target_fn": "prob"}])
def test_a_second_run_asks_the_model_nothing(dtype: torch.dtype, options: dict[str, Any]) -> None:
    model = tiny.model(dtype=dtype)
    first, second, without = (explain(on, model, **options) for on in (True, True, False))
    assert second.provenance.evaluations == second.provenance.forwarded_tokens == 0
    assert second.provenance.cached == first.provenance.evaluations > 0
    assert_same(first, second)
    assert_same(first, without)


def test_what_is_missing_is_scored_and_nothing_else() -> None:
    method = {"method": "permutation", "seed": 3, "prompt": "a b c d e f g h"}
    small = explain(budget=40, **method)
    large = explain(budget=120, **method)
    fresh = explain(False, budget=120, **method)
    assert large.provenance.cached == small.provenance.evaluations
    assert sum(cost(large)) == fresh.provenance.evaluations
    # Other batches, and so other roundings.
    np.testing.assert_allclose(large.token_values, fresh.token_values, atol=1e-12)


def test_other_methods_and_target_functions_share_rows() -> None:
    explain(method="shapley")
    assert cost(explain(method="ablation")) == (0, 6)
    assert cost(explain(method="ablation", target_fn="prob")) == (0, 6)


def test_a_reference_prompt_is_read_if_all_others_are_known() -> None:
    plain = explain(method="ablation", target_fn="pcxmi", cache=False)
    explain(method="ablation")
    assert explain(method="ablation", target_fn="pcxmi").values == pytest.approx(plain.values, abs=1e-12)


def test_generated_targets_are_written_anew_and_found_again() -> None:
    first, second = (explain(target=None, method="ablation", generate={"max_new_tokens": 4}) for _ in range(2))
    assert cost(second) == (0, 6)
    assert_same(first, second)


class NeedsLogits:
    needs = ap.Needs.LOGITS

    def __call__(self, scores: ap.Scores, target: ap.Target) -> torch.Tensor:
        assert scores.logits is not None
        found = scores.logits[:, :, 0].double()
        return torch.cat([found.sum(1, keepdim=True), found], 1)


def test_logits_are_not_cached(folder: Path) -> None:
    options = {"target": " xyz", "method": "ablation", "target_fn": NeedsLogits()}
    assert [cost(explain(**options)) for _ in range(2)] == [(6, 0), (6, 0)]
    assert not folder.exists()


def test_rows_keep_every_bit() -> None:
    for dtype in (torch.float32, torch.float64, torch.float16, torch.bfloat16):
        rows = torch.tensor([[-1e-5, -7.123456789], [-0.0, -3.0], [float("nan"), 0.0], [float("-inf"), 0.0]]).to(dtype)
        packed = pack(rows)
        assert packed[2] is packed[3] is None
        found = unpack(packed, 2)
        assert found is not None
        assert found.dtype == dtype
        assert (found[:2].view(torch.uint8) == rows[:2].view(torch.uint8)).all()
        assert found[2:].isnan().all()
    mixed = unpack([*pack(torch.tensor([[0.1]])), *pack(torch.tensor([[0.1]]).double()), b"\x09ab", b"", None], 1)
    assert mixed is not None
    assert mixed[:2].flatten().tolist() == [torch.tensor(0.1).item(), torch.tensor(0.1).double().item()]
    assert mixed[2:].isnan().all()
    assert unpack([b"\x01abc", None], 1) is None
    assert pack(torch.ones(2, 1, dtype=torch.int64)) == [None, None]


# --- never other numbers -------------------------------------------------------------------------------------------


def edited(model: Any, change: Callable[[Any], object]) -> Any:
    other = copy.deepcopy(model)
    with torch.no_grad():
        change(other)
    return other


def swap_rows(weight: torch.Tensor) -> None:
    weight[[0, 1]] = weight[[1, 0]]


def flip_a_bit(weight: torch.Tensor) -> None:
    weight.view(-1).view(torch.uint8)[-8] ^= 1


class Doubled(nn.Module):
    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return 2 * self.inner(x)


def double_the_mlp(model: Any) -> None:
    model.model.layers[0].mlp = Doubled(model.model.layers[0].mlp)


CHANGES: dict[str, Callable[[Any], object]] = {
    "one bit": lambda m: flip_a_bit(m.model.layers[0].mlp.up_proj.weight),
    "neuron": lambda m: m.model.layers[1].mlp.down_proj.weight[:, 7].zero_(),
    "sign": lambda m: m.model.layers[1].mlp.down_proj.weight.neg_(),
    "rows": lambda m: swap_rows(m.model.layers[1].self_attn.q_proj.weight),
    "buffer": lambda m: m.model.rotary_emb.inv_freq.mul_(2),
    "setting": lambda m: setattr(m.model.layers[0].self_attn, "scaling", 0.1),
    "class": double_the_mlp,
    "function": lambda m: setattr(m.model.layers[0].mlp, "act_fn", nn.GELU()),
    "attention": lambda m: m.set_attn_implementation("eager"),
    "order": lambda m: setattr(m.model, "layers", m.model.layers[::-1]),
}


@pytest.mark.parametrize("name", CHANGES)
def test_another_model_gives_no_hit(name: str) -> None:
    explain(method="ablation")
    other = edited(tiny.model(), CHANGES[name])
    assert cost(explain(model=other, method="ablation")) == (6, 0)
    assert cost(explain(model=other, method="ablation")) == (0, 6)
    assert cost(explain(method="ablation")) == (0, 6)


def test_weights_edited_between_two_runs_of_one_explainer_are_seen() -> None:
    model = copy.deepcopy(tiny.model())
    explainer = ap.Explainer((model, tiny.tokenizer()), cache=True)
    before = explainer.attribute(PROMPT, TARGET, method="ablation")
    model.lm_head.weight.data[120] *= 2
    after = explainer.attribute(PROMPT, TARGET, method="ablation")
    assert cost(after) == (6, 0)
    assert (after.values != before.values).any()


@pytest.mark.parametrize(
    "other",
    [
        {"target": "xyw"},
        {"target": [87, 88]},
        {"dtype": "float32"},
        {"model": tiny.model("qwen3")},
        {"prompt": "A B C D E"},
    ],
)
def test_another_target_dtype_family_or_prompt_gives_no_hit(other: dict[str, Any]) -> None:
    explain(method="ablation")
    cached = cost(explain(method="ablation", **other))[1]
    assert cached == 0


def test_other_versions_and_precision_give_no_hit(monkeypatch: pytest.MonkeyPatch) -> None:
    from apportion_plugins.cache import keys

    explain(method="ablation")
    with monkeypatch.context() as patch:
        patch.setattr(keys, "versions", lambda: {"torch": "0.1"})
        assert cost(explain(method="ablation")) == (6, 0)
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high")
    try:
        assert cost(explain(method="ablation")) == (6, 0)
    finally:
        torch.set_float32_matmul_precision(before)
    assert cost(explain(method="ablation")) == (0, 6)


@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_a_checksum_stays_while_the_model_does(family: str) -> None:
    model = tiny.model(family)
    checksum = model_checksum(model)
    explain(False, model, target="x", method="ablation")
    assert model_checksum(model) == checksum == model_checksum(copy.deepcopy(model))


def test_transformers_own_hooks_do_not_matter() -> None:
    model = copy.deepcopy(tiny.model())
    checksum = model_checksum(model)
    model(torch.tensor([[1, 2]]), output_hidden_states=True)
    assert model_checksum(model) == checksum


class Holder(nn.Module):
    """A module that holds one thing."""

    def __init__(self, held: Any) -> None:
        super().__init__()
        if isinstance(held, torch.Tensor):
            self.register_buffer("held", held, persistent=False)
        else:
            self.held = held


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (torch.tensor(1.0), torch.tensor(2.0)),
        (torch.tensor(True), torch.tensor(False)),
        (torch.empty(0), torch.empty(0, 2)),
        (torch.eye(9, dtype=torch.bool), torch.eye(9, dtype=torch.bool).flip(0)),
        (torch.arange(6.0).reshape(2, 3), torch.arange(6.0).reshape(3, 2)),
        (torch.arange(6.0).reshape(2, 3).T, torch.arange(6.0).reshape(3, 2)),
        (torch.ones(9).bfloat16()[1:8], torch.ones(9).bfloat16()[1:7]),
        (torch.tensor([0.0]), torch.tensor([-0.0])),
        (torch.eye(3).to_sparse(), 2 * torch.eye(3).to_sparse()),
        ([torch.ones(2)], [torch.zeros(2)]),
        ([nn.Identity()], [nn.ReLU()]),
        (torch.relu, torch.tanh),
        (lambda x: 2 * x, lambda x: 3 * x),
        ({"a": (1, 2)}, {"a": (1, 3)}),
        (np.array([1]), np.array([2])),
        (ap.Text("a"), ap.Text("b")),  # any dataclass
    ],
)
def test_whatever_a_module_holds_is_in_its_checksum(one: Any, other: Any) -> None:
    assert model_checksum(Holder(one)) == model_checksum(Holder(one))
    assert model_checksum(Holder(one)) != model_checksum(Holder(other))


def test_weights_that_are_not_in_memory_have_no_checksum() -> None:
    with pytest.raises(ap.CapabilityError, match=r"the weights 'held' are not in memory"):
        model_checksum(Holder(torch.empty(2, device="meta")))


def noise(module: nn.Module, *args: Any) -> None: ...


def replace_forward(model: Any) -> None:
    layer = model.model.layers[0]
    layer.forward = layer.forward


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda m: m.model.layers[0].register_forward_hook(noise), "'model.layers.0' has a forward hook, noise"),
        (lambda m: m.register_forward_pre_hook(noise), "the model has a forward hook, noise"),
        (replace_forward, "the forward of the module 'model.layers.0' was replaced"),
    ],
)
def test_the_cache_stays_out_where_it_cannot_see(change: Callable[[Any], object], why: str, folder: Path) -> None:
    model = copy.deepcopy(tiny.model())
    change(model)
    explainer = ap.Explainer((model, tiny.tokenizer()), cache=True)
    with pytest.warns(RuntimeWarning, match=why) as said:
        runs = [explainer.attribute(PROMPT, TARGET, method="ablation") for _ in range(2)]
    assert [cost(run) for run in runs] == [(6, 0), (6, 0)]
    assert len(said) == 1
    assert not folder.exists()


def test_hooks_on_all_modules_are_seen() -> None:
    handle = nn.modules.module.register_module_forward_hook(noise)
    try:
        with pytest.warns(RuntimeWarning, match="a hook is registered on all modules"):
            assert cost(explain(method="ablation")) == (6, 0)
    finally:
        handle.remove()


class Answering:
    """Scores batches elsewhere."""

    @ap.hookimpl
    def apportion_score(self, session: ap.Session, batch: ap.ScoringBatch) -> torch.Tensor:
        return session.log_probs(batch) - 1


class Watching:
    """Sees what is scored; may be slow."""

    def __init__(self, seconds: float = 0.0) -> None:
        self.rows, self.seconds = 0, seconds

    @ap.hookimpl(wrapper=True)
    def apportion_score(self, batch: ap.ScoringBatch) -> Iterator[None]:
        found = yield
        self.rows += batch.n_rows
        time.sleep(self.seconds)
        return found


def test_scores_of_plugin_objects_are_not_cached() -> None:
    with pytest.warns(RuntimeWarning, match=r"batches may be scored by 'Answering' of plugins=\[…\]"):
        assert cost(explain(method="ablation", plugins=[Answering()])) == (6, 0)
    assert cost(explain(method="ablation")) == (6, 0)
    watching = Watching()
    assert cost(explain(method="ablation", plugins=[watching])) == (0, 6)
    assert watching.rows == 0


class OtherSession:
    """A session with a checksum of its own, or none."""

    def __init__(self, inner: Any, stated: str | None) -> None:
        self.inner, self.stated = inner, stated

    def checksum(self) -> str:
        if self.stated is None:
            raise ap.CapabilityError("the server does not say which weights it scores with")
        return self.stated

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)


class OtherBackend:
    def __init__(self, checksum: str | None = None) -> None:
        from apportion_backends.torch.backend import TorchBackend

        self.inner, self.checksum = TorchBackend(), checksum
        self.info = self.inner.info
        self.availability, self.claims = self.inner.availability, self.inner.claims

    def load(self, *args: Any, **options: Any) -> Any:
        return OtherSession(self.inner.load(*args, **options), self.checksum)


def test_a_session_has_to_tell_what_it_scores_with() -> None:
    def run(checksum: str | None) -> tuple[int, int]:
        explainer = ap.Explainer((tiny.model(), tiny.tokenizer()), backend=OtherBackend(checksum), cache=True)
        return cost(explainer.attribute(PROMPT, TARGET, method="ablation"))

    with pytest.warns(RuntimeWarning, match="the server does not say which weights it scores with"):
        assert run(None) == (6, 0)
    assert [run("one"), run("one"), run("two")] == [(6, 0), (0, 6), (6, 0)]


def test_one_object_may_serve_several_explainers_and_threads(tmp_path: Path) -> None:
    cache = EvaluationCache(tmp_path / "shared.sqlite3")
    families = ("llama", "qwen3", "gpt2", "opt")
    alone = {family: explain(False, tiny.model(family), method="ablation") for family in families}
    found: dict[str, list[ap.Attribution]] = {family: [] for family in families}

    def run(family: str) -> None:
        explainer = ap.Explainer((tiny.model(family), tiny.tokenizer()), plugins=[cache])
        found[family] += [explainer.attribute(PROMPT, TARGET, method="ablation") for _ in range(3)]

    threads = [threading.Thread(target=run, args=[family]) for family in families]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for family, runs in found.items():
        assert [cost(result) for result in runs] == [(6, 0), (0, 6), (0, 6)]
        for result in runs:
            assert_same(result, alone[family])


# --- where the file is ---------------------------------------------------------------------------------------------


def test_the_environment_moves_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("APPORTION_CACHE", str(tmp_path / "elsewhere" / "deep"))
    explain()
    assert (tmp_path / "elsewhere" / "deep" / "evaluations.sqlite3").is_file()


def test_a_path_of_ones_own(tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    explainer = ap.Explainer((tiny.model(), tiny.tokenizer()), cache="mine.db")
    monkeypatch.chdir("/")
    explainer.attribute(PROMPT, TARGET)
    assert cost(explain(tmp_path / "mine.db")) == (0, 32)
    assert not folder.exists()


def test_the_environment_turns_it_off(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("APPORTION_DISABLE_PLUGINS", "apportion_plugins.cache")
    assert [cost(explain(method="ablation")) for _ in range(2)] == [(6, 0), (6, 0)]
    assert not folder.exists()


def foreign_database(path: Path) -> None:
    with contextlib.closing(sqlite3.connect(path)) as database:
        database.execute("PRAGMA journal_mode = WAL")
        database.execute("CREATE TABLE evaluations (precious TEXT)")
        database.execute("INSERT INTO evaluations VALUES ('yes')")
        database.commit()


@pytest.mark.parametrize(
    ("make", "why"),
    [
        (lambda path: path.mkdir(), "is a folder"),
        (lambda path: path.write_text("dear diary"), "is not an apportion evaluation cache: file is not a database"),
        (lambda path: path.write_bytes(b"x" * 5000), "is not an apportion evaluation cache: file is not a database"),
        (foreign_database, "it is a database of another application"),
        (os.mkfifo, "exists but is not a regular file"),
    ],
)
def test_a_file_of_something_else_is_refused_and_left_alone(
    make: Callable[[Path], object], why: str, tmp_path: Path
) -> None:
    path = tmp_path / "named"
    make(path)
    before = (sorted(p.name for p in tmp_path.iterdir()), path.read_bytes() if path.is_file() else b"")
    with pytest.raises(ap.InputError, match=why):
        ap.Explainer("no model is loaded before this is refused", cache=path)
    assert (sorted(p.name for p in tmp_path.iterdir()), path.read_bytes() if path.is_file() else b"") == before


@pytest.mark.parametrize("wrong", ["", 3, "\0", "/no/such/folder/file", ["a"]])
def test_paths_that_cannot_be(wrong: Any) -> None:
    with pytest.raises(ap.InputError, match="cache="):
        ap.Explainer("no model", cache=wrong)


@pytest.mark.parametrize("wrong", [0, 1000, True, "2GB", 1e9])
def test_sizes_that_cannot_be(wrong: Any) -> None:
    with pytest.raises(ap.InputError, match=r"max_bytes=.* must be a whole number of at least 65536"):
        EvaluationCache(max_bytes=wrong)


def test_a_named_file_that_turns_foreign_is_left_alone(tmp_path: Path) -> None:
    explainer = ap.Explainer((tiny.model(), tiny.tokenizer()), cache=tmp_path / "named")
    foreign_database(tmp_path / "named")
    content = (tmp_path / "named").read_bytes()
    with pytest.warns(RuntimeWarning, match="cannot be used: it is a database of another application"):
        assert cost(explainer.attribute(PROMPT, TARGET)) == (32, 0)
    assert (tmp_path / "named").read_bytes() == content


def test_without_a_place_to_write_the_run_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("not a folder")
    monkeypatch.setenv("APPORTION_CACHE", str(tmp_path / "file"))
    explainer = ap.Explainer((tiny.model(), tiny.tokenizer()), cache=True)
    with pytest.warns(RuntimeWarning, match=r"cannot be used: .*file is not a folder\. This run continues") as said:
        runs = [explainer.attribute(PROMPT, TARGET) for _ in range(2)]
    assert [cost(run) for run in runs] == [(32, 0), (32, 0)]
    assert len(said) == 1


def test_a_locked_file_is_done_without(default: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from apportion_plugins.cache import file

    first = explain(method="ablation")
    monkeypatch.setattr(file, "TIMEOUT", 0.05)
    with contextlib.closing(sqlite3.connect(default, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.warns(RuntimeWarning, match="cannot be used: database is locked"):
            assert cost(explain(target="other", method="ablation")) == (6, 0)
        assert_same(explain(method="ablation"), first)
    assert cost(explain(method="ablation")) == (0, 6)


FULL_DISK = """
import os, resource, signal, sys
from pathlib import Path
from apportion_plugins.cache.file import CacheFile
from apportion_plugins.cache.store import Store
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (150_000, 150_000))
for _ in range(2):
    said = []
    store = Store(CacheFile(Path(sys.argv[1]), owned=True, report=said.append), 2**30, said.append)
    for i in range(40):
        store.put({i.to_bytes(2, "big") + bytes(20) + j.to_bytes(2, "big"): b"x" * 50 for j in range(100)})
    assert store.get([bytes(24)]) == {}
    store.close()
    print(said)
"""


def test_a_full_disk_is_done_without(default: Path, folder: Path) -> None:
    done = subprocess.run([sys.executable, "-c", FULL_DISK, default], capture_output=True, text=True, check=True)
    for line in done.stdout.splitlines():
        assert line.count("cannot be used: ") == 1, line
        assert "disk" in line
    assert not asides(folder)
    store = Store(CacheFile(default, owned=True, report=print), 2**30, print)
    assert store.get([bytes(24)]) == {bytes(24): b"x" * 50}
    store.close()


# --- damage --------------------------------------------------------------------------------------------------------


def damaged_runs(path: Path, folder: Path, *, cache: bool | Path, expected: ap.Attribution) -> int:
    """Runs beside a damaged file and after it; gives how many files were set aside.

    What was lost is scored in other batches, so the last bit may differ. Damage may be found when rows that were
    written beside it are read, and they are scored once more.
    """
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        runs = [explain(cache) for _ in range(3)]
    for result in runs:
        np.testing.assert_allclose(result.token_values, expected.token_values, rtol=1e-9)
    assert cost(runs[-1]) == (0, 32)
    assert_same(runs[-1], runs[-2])
    aside = asides(folder)
    messages = [str(warning.message) for warning in said]
    assert len(messages) == len(aside)
    for message, moved in zip(messages, aside, strict=True):
        assert str(path) in message
        assert str(moved) in message
    return len(aside)


def wiped(folder: Path) -> None:
    for part in folder.iterdir():
        part.unlink()


@pytest.mark.parametrize("named", [False, True])
def test_a_truncated_file_is_set_aside(named: bool, default: Path, folder: Path) -> None:
    expected = explain()
    whole = default.read_bytes()
    lengths = [16, 72, 100, 511, 512, 4095, 4096, 4097, 8192, len(whole) - 1]
    for length in lengths if not named else lengths[2:]:
        wiped(folder)
        default.write_bytes(whole[:length])
        assert damaged_runs(default, folder, cache=default if named else True, expected=expected) == 1, length
    wiped(folder)
    default.write_bytes(b"")
    assert damaged_runs(default, folder, cache=default if named else True, expected=expected) == 0


def test_a_truncated_log_beside_the_file(default: Path, folder: Path) -> None:
    expected = explain()
    wiped(folder)
    store = Store(CacheFile(default, owned=True, report=print), 2**30, print)
    store.put({bytes([i]) * 24: b"x" * 50 for i in range(200)})
    main, log = default.read_bytes(), Path(f"{default}-wal").read_bytes()
    store.close()
    for length in range(0, len(log), len(log) // 9):
        wiped(folder)
        default.write_bytes(main)
        Path(f"{default}-wal").write_bytes(log[:length])
        assert damaged_runs(default, folder, cache=True, expected=expected) == 0, length


def test_garbage_in_the_middle_is_never_believed(default: Path, folder: Path) -> None:
    expected = explain()
    whole = default.read_bytes()
    draw = np.random.default_rng(0)
    aside = 0
    for size in [1, 8, 100, 4096] * 5:
        wiped(folder)
        content, at = bytearray(whole), int(draw.integers(len(whole)))
        content[at : at + size] = draw.bytes(len(content[at : at + size]))
        default.write_bytes(content)
        aside += damaged_runs(default, folder, cache=True, expected=expected)
    assert 0 < aside < 20  # a row that was hit is scored again, a page that was hit condemns the file


@pytest.mark.parametrize(
    ("make", "why"),
    [
        (lambda path: path.write_text("dear diary"), "file is not a database"),
        (foreign_database, "it is a database of another application"),
        (lambda path: set_version(path, 7), "it has layout 7, and this apportion has layout 1"),
        (lambda path: drop_table(path), "it has no table of evaluations"),
    ],
)
def test_what_is_no_cache_of_ours_is_set_aside(
    make: Callable[[Path], object], why: str, default: Path, folder: Path
) -> None:
    folder.mkdir()
    make(default)
    content = default.read_bytes()
    with pytest.warns(RuntimeWarning, match=why) as said:
        assert cost(explain()) == (32, 0)
    (moved,) = asides(folder)
    assert moved.read_bytes() == content
    assert str(default) in str(said[0].message)
    assert moved.name in str(said[0].message)
    assert cost(explain()) == (0, 32)


def set_version(path: Path, version: int) -> None:
    explain()
    with contextlib.closing(sqlite3.connect(path)) as database:
        database.execute(f"PRAGMA user_version = {version}")


def drop_table(path: Path) -> None:
    explain()
    with contextlib.closing(sqlite3.connect(path)) as database:
        database.execute("DROP TABLE evaluations")


def test_damage_found_by_two_at_once_spares_the_new_file(default: Path, folder: Path) -> None:
    said: list[str] = []

    def store() -> Store:
        return Store(CacheFile(default, owned=True, report=said.append), 2**30, said.append)

    rows = {bytes([i]) * 24: b"value" * 20 for i in range(250)}
    for opened in (first := store(), second := store()):
        opened.put(rows)
    with default.open("r+b") as file:  # every page but the first
        file.seek(4096)
        file.write(b"\xff" * (default.stat().st_size - 4096))
    with contextlib.closing(sqlite3.connect(default)) as other:
        other.execute("PRAGMA wal_checkpoint")
    for opened in (first, second):
        assert opened.get(list(rows)) in ({}, rows)
        opened.put(rows)
        assert opened.get(list(rows)) == rows
    first.close()
    second.close()
    assert len(asides(folder)) <= 1
    assert store().get(list(rows)) == rows


def test_a_row_under_another_key_is_not_believed(default: Path) -> None:
    store = Store(CacheFile(default, owned=True, report=print), 2**30, print)
    store.put({b"a" * 24: b"one", b"b" * 24: b"two"})
    store.close()
    with contextlib.closing(sqlite3.connect(default)) as database:
        database.execute("UPDATE evaluations SET value = (SELECT value FROM evaluations ORDER BY key LIMIT 1)")
        database.commit()
    assert store.get([b"a" * 24, b"b" * 24]) == {b"a" * 24: b"one"}
    store.put({b"b" * 24: b"three"})
    assert store.get([b"b" * 24]) == {b"b" * 24: b"three"}
    store.close()


def test_rows_that_are_not_finite_are_not_kept(default: Path) -> None:
    model = copy.deepcopy(tiny.model())
    explainer = ap.Explainer((model, tiny.tokenizer()), cache=True)
    model.lm_head.weight.data.fill_(float("nan"))
    for _ in range(2):
        with pytest.raises(ap.ScoreError):
            explainer.attribute(PROMPT, TARGET)
    with contextlib.closing(sqlite3.connect(default)) as database:
        assert database.execute("SELECT count(*) FROM evaluations").fetchone() == (0,)


# --- size ----------------------------------------------------------------------------------------------------------


def test_the_least_recently_used_rows_go_first(default: Path) -> None:
    now = [1_000_000.0]
    limit = 200_000

    def store() -> Store:
        return Store(CacheFile(default, owned=True, report=print), limit, print, clock=lambda: now[0])

    def batch(number: int) -> dict[bytes, bytes]:
        return {number.to_bytes(8, "big") + i.to_bytes(16, "big"): os.urandom(60) for i in range(100)}

    batches = [batch(i) for i in range(40)]
    for i, rows in enumerate(batches):
        opened = store()
        opened.put(rows)
        opened.get(list(batches[0]))  # in use all the time
        opened.close()
        now[0] += 4000
        assert default.stat().st_size <= limit, i
    opened = store()
    known = [len(opened.get(list(rows))) for rows in batches]
    opened.close()
    assert known[0] == 100
    gone = known.index(100, 1)
    assert 1 < gone < 35
    assert all(count == 100 for count in known[gone:])
    assert sum(known[1 : gone - 1]) == 0
    assert default.stat().st_size > limit / 2


def test_a_smaller_limit_clears_the_file_at_the_end_of_a_run(default: Path) -> None:
    store = Store(CacheFile(default, owned=True, report=print), 2**30, print)
    store.put({os.urandom(24): b"x" * 60 for _ in range(2000)})
    store.close()
    assert default.stat().st_size > 2**17
    explain(False, plugins=[EvaluationCache(default, max_bytes=2**16)], method="ablation")
    assert default.stat().st_size <= 2**16


# --- several processes ---------------------------------------------------------------------------------------------

PROCESS = """
import sys, time
import apportion as ap
from apportion.testing import tiny
class Slow:
    @ap.hookimpl(wrapper=True)
    def apportion_score(self):
        found = yield
        print("batch", flush=True)
        time.sleep(0.02)
        return found
def explain(prompt, **options):
    explainer = ap.Explainer((tiny.model(), tiny.tokenizer()), cache=sys.argv[1], **options)
    return explainer.attribute(prompt, "xyz", budget=4096)
"""
QUICK = "result = explain('a b c d e')\nprint(*result.values.tolist(), flush=True)\n"
SLOW = "explain('a b c d e f g h', plugins=[Slow()], memory_budget=1)"  # row by row


def test_a_killed_process_leaves_what_it_scored(default: Path, folder: Path, forks: Forks) -> None:
    folder.mkdir()
    killed = forks.start(PROCESS + QUICK + SLOW, default)
    values = killed.stdout.readline()
    for _ in range(20):
        assert killed.stdout.readline() == "batch\n"
    killed.kill()
    killed.communicate()
    with contextlib.closing(sqlite3.connect(default)) as database:
        assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    finished = explain()
    assert cost(finished) == (0, 32)
    assert values.split() == [repr(value) for value in finished.values.tolist()]
    broken_off = explain(prompt="a b c d e f g h")
    assert sum(cost(broken_off)) == 256
    assert broken_off.provenance.cached >= 19
    # Other batches, other roundings.
    np.testing.assert_allclose(broken_off.values, explain(False, prompt="a b c d e f g h").values, rtol=1e-9)
    assert cost(explain(prompt="a b c d e f g h")) == (0, 256)


def test_two_runs_at_once(default: Path, folder: Path, forks: Forks) -> None:
    folder.mkdir()
    ended = [running.communicate() for running in [forks.start(PROCESS + QUICK, default) for _ in range(3)]]
    expected = " ".join(repr(value) for value in explain(False).values.tolist())
    assert ended == [(f"{expected}\n", "")] * 3
    assert cost(explain()) == (0, 32)
    assert not asides(folder)


WRITER = """
import hashlib, random, sys
from pathlib import Path
from apportion_plugins.cache.file import CacheFile
from apportion_plugins.cache.store import Store
draw = random.Random(sys.argv[2])
for _ in range(15):
    store = Store(CacheFile(Path(sys.argv[1]), owned=True, report=print), 200_000, print)
    for _ in range(5):
        keys = [hashlib.sha256(b"%d" % draw.randrange(2000)).digest()[:24] for _ in range(100)]
        found = store.get(keys)
        assert all(found[key] == hashlib.sha512(key).digest() for key in found)
        store.put({key: hashlib.sha512(key).digest() for key in keys if key not in found})
    store.close()
"""


def test_many_processes_write_and_clear_one_file(default: Path, folder: Path, forks: Forks) -> None:
    """They begin it together, and it is too small for what they write."""
    writers = [forks.start(WRITER, default, i) for i in range(4)]
    assert [writer.communicate() for writer in writers] == [("", "")] * 4
    assert default.stat().st_size <= 200_000
    with contextlib.closing(sqlite3.connect(default)) as database:
        assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    assert not asides(folder)


def test_the_command_line(tiny_model_dir: Path, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["attribute", "--model", str(tiny_model_dir), "a b", "--target", "x", "--cache", "--json"]
    costs = []
    for _ in range(2):
        assert main(words) == 0
        captured = capsys.readouterr()
        provenance = json.loads(captured.out)["provenance"]
        costs.append((provenance["evaluations"], provenance["cached"]))
        assert captured.err == ""
    assert costs == [(4, 0), (0, 4)]
    shutil.rmtree(folder)
    folder.write_text("not a folder")
    assert main(words) == 0
    path = folder / "evaluations.sqlite3"
    assert capsys.readouterr().err == (
        f"warning: The evaluation cache {path} cannot be used: {folder} is not a folder. "
        "This run continues without it.\n"
    )
