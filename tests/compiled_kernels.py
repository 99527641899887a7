"""Compile every Triton kernel for NVIDIA GPUs, which takes none, and print what each one needs, as JSON.

Run by ``test_triton_compiles.py`` in a process of its own, where kernels are not interpreted.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from importlib import import_module, resources
from pathlib import Path

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from apportion_backends.triton.linear_logprob import Tiles

# `apportion_backends.triton.linear_logprob` is a module and, inside, a function of the same name.
linear, embedding, prefix = (
    import_module(f"apportion_backends.triton.{name}")
    for name in ("linear_logprob", "masked_embedding", "shared_prefix_attention")
)

POINTERS = {
    "target": "*i64", "ids": "*i64", "baseline_ids": "*i64", "words": "*i32", "features": "*i32", "lengths": "*i32",
    "top_ids": "*i32",
    **dict.fromkeys(("hidden", "weight", "bias", "slopes", "query", "key", "value", "baseline", "out"), "*{dtype}"),
    **dict.fromkeys(
        ("maxima", "sums", "chosen_logits", "weighted_sums", "top_logits", "log_probs", "logits", "entropies",
         "normalizers", "upstream", "far", "far_sums"), "*fp32",
    ),
}  # fmt: skip
FLOATS = ("inverse_temperature", "temperature", "soft_cap", "scaling")


def kernels() -> Iterator[tuple[str, object, dict[str, object], Mapping[str, str], Tiles | object]]:
    """Name, kernel, constants, types that differ, tiles."""
    for rows in (1, 100_000):
        tiles = Tiles.of(rows, 4096, 128_256)
        cut = {"BLOCK_R": tiles.rows, "BLOCK_V": tiles.vocabulary, "BLOCK_D": tiles.inner, "UPCAST": False}
        for asked in ({"ENTROPY": False, "TOP": 0}, {"ENTROPY": True, "TOP": 8}):
            constants = {**cut, **asked, "HAS_BIAS": asked["ENTROPY"], "HAS_CAP": asked["ENTROPY"]}
            yield f"slices of {rows} rows, top {asked['TOP']}", linear._slices_kernel, constants, {}, tiles
        yield (
            f"slopes of {rows} rows", linear._slopes_kernel, {**cut, "HAS_BIAS": True, "HAS_CAP": True}, {}, tiles,
        )  # fmt: skip
    merging = {"ENTROPY": True, "BLOCK_R": linear.MERGED_ROWS, "BLOCK_S": 64}
    yield "merge", linear._merge_kernel, merging, {}, Tiles(64, 64, 64, 1, 4, 1)
    for by_id in (True, False):
        cut = {"BY_ID": by_id, "BLOCK_L": embedding.BLOCK_TOKENS, "BLOCK_D": embedding.BLOCK_CHANNELS}
        yield f"embedding, by id {by_id}", embedding._kernel, cut, {}, Tiles(64, 64, 64, 1, 4, 1)
    for channels in (64, 128, 256):
        tiles = prefix._Tiles.of(channels)
        cut = {"SHARED": 4, "UPCAST": False, "BLOCK_M": tiles.queries, "BLOCK_N": tiles.keys, "BLOCK_D": channels}
        yield f"prefix of {channels} channels", prefix._prefix_kernel, cut, {"out": "*fp32"}, tiles
        yield f"suffix of {channels} channels", prefix._suffix_kernel, cut, {}, tiles


def compiled(kernel: object, constants: dict[str, object], other: Mapping[str, str], tiles: object, dtype: str, capability: int):
    types = {
        name: "constexpr" if name in constants else "fp32" if name in FLOATS
        else (other.get(name) or POINTERS.get(name, "i32")).format(dtype=dtype)
        for name in kernel.arg_names
    }  # fmt: skip
    return triton.compile(
        ASTSource(kernel, types, constants),
        target=GPUTarget("cuda", capability, 32),
        options={"num_warps": tiles.warps, "num_stages": tiles.stages},
    )


def needs(cubin: bytes) -> dict[str, int]:
    """Registers, and bytes of local memory, which is where what does not fit into them goes."""
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        tool = Path(str(resources.files("triton"))) / "backends" / "nvidia" / "bin" / "cuobjdump"
        said = subprocess.run([tool, "-res-usage", file.name], capture_output=True, text=True, check=True).stdout
    return {name.lower(): int(re.search(rf"{name}:(\d+)", said)[1]) for name in ("REG", "STACK", "LOCAL")}


def main() -> None:
    found = []
    for capability in (80, 90):
        for dtype in sys.argv[1:] or ("bf16",):
            for name, kernel, constants, other, tiles in kernels():
                done = compiled(kernel, constants, other, tiles, dtype, capability)
                row = {"kernel": name, "dtype": dtype, "capability": capability, "shared": done.metadata.shared}
                found.append(row | needs(done.asm["cubin"]))
    print(json.dumps(found))


if __name__ == "__main__":
    main()
