"""The weights of a graph while it is made, and the file that they are written to."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

__all__ = ["Weights"]

ALIGNED = 4096
"""Weights begin at multiples of a page, so that ONNX Runtime can map them into memory."""
SMALL = 1024
"""Bytes of a weight that stays in the graph."""


@dataclass
class Weights:
    """Arrays by the names of a graph's initializers; rows of an array may have names of their own.

    Attributes:
        arrays: the arrays.
        rows: for further names: the name of an array, and its first row and the one after the last.
    """

    arrays: dict[str, np.ndarray] = field(default_factory=dict)
    rows: dict[str, tuple[str, int, int]] = field(default_factory=dict)

    def add(self, name: str, array: np.ndarray | np.generic) -> str:
        """Add an array, and return its name."""
        self.arrays[name] = np.asarray(array)
        return name

    def add_rows(self, name: str, whole: str, first: int, after: int) -> str:
        """Name some rows of an array, which are not stored again."""
        self.rows[name] = (whole, first, after)
        return name

    def same_as(self, array: np.ndarray) -> str | None:
        """The name of an array that has the memory of this one."""
        for name, known in self.arrays.items():
            if known.shape == array.shape and known.dtype == array.dtype and np.shares_memory(known, array):
                return name
        return None

    def write(self, graph: onnx.GraphProto, path: Path) -> dict[str, int]:
        """Write the weights that the graph uses, and refer to them in the graph.

        Returns:
            The first byte of each array in the file, by name.
        """
        used = {name for node in graph.node for name in node.input}
        needed = {self.rows[name][0] for name in used & self.rows.keys()} | (used & self.arrays.keys())
        offsets: dict[str, int] = {}
        del graph.initializer[:]
        with path.open("wb") as file:
            for name in sorted(needed):
                array = np.asarray(self.arrays[name], order="C")  # ascontiguousarray would make scalars 1-D
                if array.nbytes < SMALL and name not in {whole for whole, *_ in self.rows.values()}:
                    graph.initializer.append(numpy_helper.from_array(array, name))
                    continue
                file.write(b"\0" * (-file.tell() % ALIGNED))
                offsets[name] = file.tell()
                file.write(array.tobytes())
                if name in used:
                    graph.initializer.append(_outside(name, array, array.shape, path.name, offsets[name]))
        for name in sorted(used & self.rows.keys()):
            whole, first, after = self.rows[name]
            array = self.arrays[whole]
            row = array.itemsize * int(np.prod(array.shape[1:]))
            shape = (after - first, *array.shape[1:])
            graph.initializer.append(_outside(name, array, shape, path.name, offsets[whole] + first * row))
        return offsets


def _outside(name: str, array: np.ndarray, shape: tuple[int, ...], file: str, offset: int) -> TensorProto:
    length = array.itemsize * int(np.prod(shape))
    tensor = TensorProto(
        name=name,
        dims=shape,
        data_type=helper.np_dtype_to_tensor_dtype(array.dtype),
        data_location=TensorProto.EXTERNAL,
    )
    for key, value in (("location", file), ("offset", offset), ("length", length)):
        tensor.external_data.add(key=key, value=str(value))
    return tensor
