"""Whole runs of models with random weights: many prompts with a common prefix, on both backends and with Captum."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
import transformers
from benchmarks.kernels.timing import Contender, Timed
from benchmarks.speed.peers import captum

from apportion.benchmarking.floor import ModelShape, optimal_flops
from apportion.benchmarking.gemm import gemm_rate
from apportion.benchmarking.tree import prefix_tree
from apportion.protocols.backend import Backend, ScoringBatch, Session
from apportion.protocols.model import ModelSpec
from apportion.protocols.row import Row
from apportion.scoring.batches import Batches
from apportion.testing import tiny
from apportion_backends.torch.backend import TorchBackend
from apportion_backends.torch.loading import open_model
from apportion_backends.triton.backend import TritonBackend

__all__ = ["CONTENDERS", "RUNS", "TINY", "Ran", "RunShape", "run"]

CAPTUM_FEATURES = 4
"""Captum runs one forward pass per perturbation, so a few are enough to extrapolate from."""
GEMM_SHAPES = ((4096, 4096, 4096), (8192, 4096, 14336), (8192, 14336, 4096), (16384, 4096, 4096))


@dataclass(frozen=True, slots=True)
class RunShape:
    """A model, and the number and length of the prompts.

    Attributes:
        name: name of the model in tables.
        config: configuration of the model.
        rows: number of prompts.
        shared: number of prefix tokens that all prompts share.
        own: number of tokens after the prefix.
        targets: number of target tokens to score.
    """

    name: str
    config: transformers.PretrainedConfig
    rows: int = 2000
    shared: int = 400
    own: int = 100
    targets: int = 50


LLAMA_3_8B = transformers.LlamaConfig(
    vocab_size=128_256, hidden_size=4096, intermediate_size=14_336, num_hidden_layers=32, num_attention_heads=32,
    num_key_value_heads=8, max_position_embeddings=8192,
)  # fmt: skip
QWEN3_600M = transformers.Qwen3Config(
    vocab_size=151_936, hidden_size=1024, intermediate_size=3072, num_hidden_layers=28, num_attention_heads=16,
    num_key_value_heads=8, head_dim=128, max_position_embeddings=8192, tie_word_embeddings=True,
)  # fmt: skip
CONTENDERS = (
    "apportion, backend torch",
    "apportion, backend triton",
    "apportion, backend triton, kernels always",
    "Captum, correct path",
    "Captum, default path",
)
RUNS = (RunShape("Llama 3 8B", LLAMA_3_8B), RunShape("Qwen3 0.6B", QWEN3_600M))
TINY = (RunShape("a tiny Llama", tiny.config("llama"), rows=6, shared=20, own=5, targets=3),)


@dataclass(frozen=True, slots=True)
class Ran:
    """One run of a backend or a peer.

    Attributes:
        contender: time and memory.
        rate: evaluations per second.
        share: share of the measured matrix-product rate, for the minimum arithmetic; ``None`` for peers.
    """

    contender: Contender
    rate: float
    share: float | None


def run(shape: RunShape, device: str, dtype: torch.dtype) -> Iterator[Ran]:
    """Run each backend of apportion, then both paths of Captum on fewer perturbations."""
    torch.manual_seed(0)
    with torch.device(device):
        model = transformers.AutoModelForCausalLM.from_config(shape.config, dtype=dtype).eval()
    spec = ModelSpec(shape.name, tiny.tokenizer(), objects=model)
    rows = _rows(shape)
    sequences = [row.read for row in rows]
    tree = prefix_tree(sequences)
    flops = optimal_flops(ModelShape.of(model), tree, shape.targets)
    rate = gemm_rate(device, dtype, shapes=GEMM_SHAPES) if device != "cpu" else gemm_rate()
    ours: tuple[tuple[Backend, dict[str, str]], ...] = (
        (TorchBackend(), {}),
        (TritonBackend(), {}),
        (TritonBackend(), {"kernels": "always"}),
    )
    for name, (backend, options) in zip(CONTENDERS[:3], ours, strict=True):
        timed, notes = _scored(backend, options, spec, rows, device)
        share = flops / rate / timed.median
        yield Ran(Contender(name, timed, note=notes), len(rows) / timed.median, share)
    for name, default_path in zip(CONTENDERS[3:], (False, True), strict=True):
        yield _captum(name, shape, spec, device, default_path)


def _rows(shape: RunShape) -> list[Row]:
    draw = torch.Generator().manual_seed(0)

    def tokens(count: int) -> tuple[int, ...]:
        return tuple(torch.randint(0, shape.config.vocab_size, (count,), generator=draw).tolist())

    common, target = tokens(shape.shared), tokens(shape.targets)
    return [Row(common + tokens(shape.own), target) for _ in range(shape.rows)]


def _scored(
    backend: Backend, options: dict[str, str], spec: ModelSpec, rows: list[Row], device: str
) -> tuple[Timed, str]:
    session: Session = backend.load(spec, device=None, dtype=None, memory_budget=None, **options)
    few = rows[: max(2, len(rows) // 50)]
    for _ in Batches(session).run(few, session.log_probs, print):
        pass
    session.release()
    held = _reset(device)
    started = time.perf_counter()
    read: Callable[[ScoringBatch], torch.Tensor] = session.log_probs
    for _ in Batches(session).run(rows, read, print):
        pass
    seconds = time.perf_counter() - started
    extra = None if device == "cpu" else torch.cuda.max_memory_allocated() - held
    notes = "; ".join(session.info.notes)
    return Timed(seconds, seconds, seconds, extra), notes


def _captum(name: str, shape: RunShape, spec: ModelSpec, device: str, default_path: bool) -> Ran:
    """Run Captum on text of the same length; every byte is a token of the tiny tokenizer."""
    own = shape.own // CAPTUM_FEATURES
    names = [f"slot{i}" for i in range(CAPTUM_FEATURES)]
    template = "x" * shape.shared + "".join(f"{{{name}}}" for name in names)
    values = {name: chr(ord("a") + i) * own for i, name in enumerate(names)}
    baselines = dict.fromkeys(names, "z" * own)
    peer = captum.slots("FeatureAblation", template, values, baselines, "y" * shape.targets, default_path=default_path)
    try:
        work = peer.prepare(open_model(spec))
        held = _reset(device)
        started = time.perf_counter()
        work()
        seconds = time.perf_counter() - started
    except (ImportError, RuntimeError, ValueError, TypeError, IndexError, AssertionError) as error:
        return Ran(Contender(name, None, note=f"{type(error).__name__}: {str(error)[:80]}"), 0.0, None)
    extra = None if device == "cpu" else torch.cuda.max_memory_allocated() - held
    evaluations = CAPTUM_FEATURES + 1
    whole = seconds * shape.rows / evaluations
    note = f"extrapolated from {evaluations} evaluations"
    return Ran(Contender(name, Timed(whole, whole, whole, extra), note=note), evaluations / seconds, None)


def _reset(device: str) -> int:
    if device == "cpu":
        return 0
    torch.cuda.synchronize()
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    return torch.cuda.memory_allocated()
