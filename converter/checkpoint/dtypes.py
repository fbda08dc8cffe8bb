"""The types of tensors: TensorFlow's numbers (DataType) and the names that it prints for them."""

from __future__ import annotations

FLOAT = 1
STRING = 7
BFLOAT16 = 14

_NAMES = {
    FLOAT: "float32",
    2: "float64",
    3: "int32",
    4: "uint8",
    5: "int16",
    6: "int8",
    STRING: "string",
    8: "complex64",
    9: "int64",
    10: "bool",
    11: "qint8",
    12: "quint8",
    13: "qint32",
    BFLOAT16: "bfloat16",
    15: "qint16",
    16: "quint16",
    17: "uint16",
    18: "complex128",
    19: "float16",
    20: "resource",
    21: "variant",
    22: "uint32",
    23: "uint64",
    24: "float8_e5m2",
    25: "float8_e4m3fn",
    26: "float8_e4m3fnuz",
    27: "float8_e4m3b11fnuz",
    28: "float8_e5m2fnuz",
    29: "int4",
    30: "uint4",
    31: "int2",
    32: "uint2",
    33: "float4_e2m1fn",
}


def dtype_name(dtype: int) -> str:
    """The name of a type; of one that came after this list, its number."""
    return _NAMES.get(dtype, f"of the unknown type {dtype}")
