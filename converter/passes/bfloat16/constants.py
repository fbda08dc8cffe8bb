"""Values of constants, as they are stored: one may stand for many."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from converter.graph.protos import DT_BFLOAT16, TensorProto
from converter.rounding import clipped, rounded


def exceeds_bfloat16(tensor: TensorProto) -> bool:
    """Whether a finite float32 value of the tensor would be infinite in bfloat16."""
    values = _values(tensor)
    return not np.array_equal(values, clipped(values), equal_nan=True)


def clamp(tensor: TensorProto) -> None:
    """Makes the float32 values of the tensor finite in bfloat16."""
    finite = clipped(_values(tensor))
    if tensor.tensor_content:
        tensor.tensor_content = finite.astype("<f4").tobytes()
    else:
        del tensor.float_val[:]
        tensor.float_val.extend(finite.tolist())


def to_bfloat16(tensor: TensorProto) -> None:
    """Rounds the float32 values of the tensor."""
    cast = rounded(_values(tensor))
    in_bytes = bool(tensor.tensor_content)
    tensor.dtype = DT_BFLOAT16
    tensor.ClearField("tensor_content")
    tensor.ClearField("float_val")
    if in_bytes:
        tensor.tensor_content = cast.tobytes()
    else:
        tensor.half_val.extend(cast.view(np.uint16).tolist())


def _values(tensor: TensorProto) -> NDArray[np.float32]:
    if tensor.tensor_content:
        return np.frombuffer(tensor.tensor_content, "<f4")
    return np.array(tensor.float_val, np.float32)
