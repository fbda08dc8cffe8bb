"""Which dtypes the kernels of an op take: on a TPU, read off a real TPU build, and on this machine's CPU."""

from __future__ import annotations

import functools
import json
from collections.abc import Collection, Iterable
from importlib import resources

from tensorflow.python.framework.kernels import get_registered_kernels_for_op

from converter.graph.protos import KernelList
from converter.graph.tensors import dtype_name

Kernel = dict[str, list[str]]
"""Type attribute -> names of the dtypes that it may be; what is not in it may be any."""


@functools.cache
def tpu_kernels() -> dict[str, list[Kernel]]:
    """Op type -> its TPU kernels."""
    text = resources.files("converter").joinpath("data/xla_tpu_kernels.json").read_text(encoding="utf-8")
    found: dict[str, list[Kernel]] = json.loads(text)["ops"]
    return found


@functools.cache
def cpu_kernels(op: str) -> list[Kernel]:
    """The CPU kernels of an op."""
    registered: KernelList = get_registered_kernels_for_op(op)
    return [
        {c.name: [dtype_name(t) for t in c.allowed_values.list.type] for c in kernel.constraint}
        for kernel in registered.kernel
        if kernel.device_type in ("CPU", "DEFAULT")
    ]


def takes(found: Iterable[Kernel], attrs: Collection[str], dtype: str) -> bool:
    """Whether one of these kernels takes all of the type attributes `attrs` being `dtype`."""
    return any(all(dtype in kernel.get(attr, (dtype,)) for attr in attrs) for kernel in found)


def has_cpu_kernel(op: str, attrs: Collection[str], dtype: str) -> bool:
    """Whether TensorFlow has a CPU kernel of `op` for all type attributes `attrs` being `dtype`."""
    return takes(cpu_kernels(op), attrs, dtype)
