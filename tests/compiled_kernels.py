"""Compile every Triton kernel for NVIDIA GPUs, without one, and print the resources that each needs, as JSON.

``python tests/compiled_kernels.py bf16 90 fp32 80``: pairs of a dtype and a compute capability. Run by
``test_triton_compiles.py`` in a process of its own, where kernels are not interpreted.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from importlib import import_module, resources
from itertools import product
from pathlib import Path
from typing import Any

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from apportion_backends.triton.tiles import Tiles

# `apportion_backends.triton.linear_logprob` is a module and, inside, a function of the same name.
linear, prefix = (
    import_module(f"apportion_backends.triton.{name}") for name in ("linear_logprob", "shared_prefix_attention")
)

DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}
POINTERS = {
    "target": "*i64", "lengths": "*i32",
    **dict.fromkeys(("hidden", "weight", "bias", "slopes", "query", "key", "value", "out"), "*{dtype}"),
    **dict.fromkeys(
        ("maxima", "sums", "log_probs", "logits", "normalizers", "far", "far_sums"), "*fp32",
    ),
}  # fmt: skip
ANY = ("n_rows", "n_slices", "n_queries", "n_suffix", "n_prefix", "n_heads", "first", "end")
"""Sizes that need not be multiples of 16."""
FLOATS = ("soft_cap", "scaling")


def kernels(dtype: torch.dtype) -> Iterator[tuple[str, Any, dict[str, object], Mapping[str, str], Any]]:
    """Name, kernel, constants, exceptions to POINTERS, and tiles."""
    weight = torch.empty(128_256, 4096, dtype=dtype, device="meta")
    for rows in (1, 100_000):
        for bias, cap in product((False, True), repeat=2):
            tiles = Tiles.of(rows, weight, bare=not (bias or cap))
            for name, cut in (("slices", tiles), ("slopes", tiles.for_gradient())):
                constants = {**linear._Head(weight, None, None, cut)._cut(cut), "HAS_BIAS": bias, "HAS_CAP": cap}
                title = f"{name} of {rows} rows, bias {bias}, cap {cap}"
                yield title, getattr(linear, f"_{name}_kernel"), constants, {}, cut
    small = Tiles(16, 16, 16, 1, 4, 1)
    target = {"HAS_BIAS": True, "HAS_CAP": True, "BLOCK_R": linear.TARGET_ROWS, "BLOCK_D": linear.TARGET_CHANNELS}
    yield "target", linear._target_kernel, target, {"logits": "*fp32"}, small
    merging = {"BLOCK_R": linear.MERGED_ROWS, "BLOCK_S": 64}
    yield "merge", linear._merge_kernel, merging, {}, small
    for channels in (64, 128, 256):
        tiles = prefix._Tiles.of(channels, dtype)
        cut = {"SHARED": 4, "UPCAST": False, "BLOCK_M": tiles.queries, "BLOCK_N": tiles.keys, "BLOCK_D": channels}
        yield f"prefix of {channels} channels", prefix._prefix_kernel, cut, {"out": "*fp32"}, tiles
        yield f"suffix of {channels} channels", prefix._suffix_kernel, cut, {}, tiles


def compiled(
    kernel: Any, constants: dict[str, object], other: Mapping[str, str], tiles: Any, dtype: str, capability: int
) -> Any:
    """Compile as for a launch with tensors and sizes that are multiples of 16, as those of models are."""
    types = {
        name: "constexpr" if name in constants else "fp32" if name in FLOATS
        else (other.get(name) or POINTERS.get(name, "i32")).format(dtype=dtype)
        for name in kernel.arg_names
    }  # fmt: skip
    aligned = {
        (place,): [["tt.divisibility", 16]]
        for place, name in enumerate(kernel.arg_names)
        if types[name].startswith("*") or (types[name] == "i32" and name not in ANY)
    }
    return triton.compile(
        ASTSource(kernel, types, constants, aligned),
        target=GPUTarget("cuda", capability, 32),
        options={"num_warps": tiles.warps, "num_stages": tiles.stages},
    )


def needs(cubin: bytes) -> dict[str, int]:
    """Registers, and bytes of stack and local memory, where registers spill."""
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        tool = Path(str(resources.files("triton"))) / "backends" / "nvidia" / "bin" / "cuobjdump"
        said = subprocess.run([tool, "-res-usage", file.name], capture_output=True, text=True, check=True).stdout
    return {name.lower(): int(re.search(rf"{name}:(\d+)", said)[1]) for name in ("REG", "STACK", "LOCAL")}


def main() -> None:
    found = []
    for dtype, capability in zip(sys.argv[1::2], map(int, sys.argv[2::2]), strict=True):
        for name, kernel, constants, other, tiles in kernels(DTYPES[dtype]):
            done = compiled(kernel, constants, other, tiles, dtype, capability)
            row = {"kernel": name, "dtype": dtype, "capability": capability, "shared": done.metadata.shared}
            found.append(row | needs(done.asm["cubin"]))
    print(json.dumps(found))


if __name__ == "__main__":
    main()
