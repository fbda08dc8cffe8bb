"""Which ops stay float32, and why.

Reasons are phrases that follow the name of an op in reports: "Range stays float32: <reason>".
"""

from __future__ import annotations

import difflib
import functools
from collections.abc import Collection, Iterable

from converter.errors import OptionsError, nearest
from converter.graph import kernels, ops, tensors
from converter.graph.model import Model
from converter.graph.protos import DT_BFLOAT16, DT_FLOAT, NodeDef, OpDef
from converter.passes.bfloat16.normalization import NORMALIZATION

_FLOAT, _BFLOAT16 = DT_FLOAT, DT_BFLOAT16

VARIABLE_OP = "VarHandleOp"
USER_REASON = "is in the filterlist"

# Ops that lose too much in bfloat16, that XLA does not compute in it, or whose functions work on float32 scalars.
_DEFAULT_FILTER = {
    "Assert",
    "Dequantize",
    "FakeQuantWithMinMaxVars",
    "MatrixSolve",
    "NonMaxSuppressionV5",
    "ParseExample",
    "ParseExampleV2",
    "ParseSequenceExample",
    "ParseSequenceExampleV2",
    "ParseSingleExample",
    "ParseSingleSequenceExample",
    "Qr",
    "RFFT",
    "Range",
    "ResizeArea",
    "ResizeBilinear",
    "SparseMatMul",
    "SparseSegmentSqrtN",
    "TopKWithUnique",
    "XlaIf",
    "XlaReduce",
    "XlaReduceWindow",
    "XlaScatter",
    "XlaSelectAndScatter",
    "XlaVariadicReduce",
    "XlaVariadicReduceV2",
    "XlaVariadicSort",
    "XlaWhile",
}
_NORMALIZATIONS = {"FusedBatchNorm", "FusedBatchNormV2", "FusedBatchNormV3"}
# Ops to which the bytes or the text of a value matter.
_REPRESENTATION = {"Bitcast", "AsString", "DecodeRaw", "DecodePaddedRaw", "SerializeTensor", "ParseTensor"}
# Ops that look a value up among edges: rounded, it falls on another side.
_EDGES = {"Bucketize", "LowerBound", "UpperBound"}
_SPECTRA = {"RFFT", "RFFT2D", "RFFT3D", "RFFTND", "Complex"}
# A program compiled from JAX or PyTorch, whose types are fixed inside of it.
_COMPILED_PROGRAMS = {"XlaCallModule"}
_OUTSIDE_COMPILATION = "_xla_outside_compilation"


class OpFilter:
    """Decides which nodes of one model stay float32.

    Attributes:
      warnings: one for each entry of the filterlist of which the model has no node.
    """

    def __init__(self, model: Model, filterlist: Collection[str] = ()) -> None:
        """Raises OptionsError if `filterlist` holds an op type that neither TensorFlow nor the model knows."""
        present = {node.op for scope in model.scopes() for node in scope.nodes} if filterlist else set()
        absent = [op for op in filterlist if op not in present]
        for op in absent:
            if ops.op_def(op, model) is None:
                similar = nearest(op, difflib.get_close_matches(op, ops.registered(), n=10, cutoff=0.0))
                raise OptionsError(
                    f'bfloat16_optimization_options: filterlist names "{op}", which is no op type of TensorFlow or of '
                    f"the model. The most similar op types are: {similar}. Correct the entry or remove it."
                )
        self.warnings = [
            f'bfloat16_optimization_options: filterlist names "{op}", but the model has no such op.' for op in absent
        ]
        self._filterlist = set(filterlist)

    @property
    def keeps_variables(self) -> bool:
        """Whether the user wants all variables in float32."""
        return VARIABLE_OP in self._filterlist

    def listed(self, op: str) -> str | None:
        """The reason why ops of this type stay float32 wherever they are; None if they need not."""
        if op in self._filterlist:
            return USER_REASON
        if op in _COMPILED_PROGRAMS:
            return "holds a program compiled with float32 types"
        if op in _REPRESENTATION:
            return "depends on how a value is represented"
        if op in _EDGES:
            return "compares values with edges"
        if op in ops.RANDOM:
            return "draws random numbers, of which bfloat16 has few"
        if op in _NORMALIZATIONS:
            return NORMALIZATION
        return "is on the list of ops that need float32" if op in _DEFAULT_FILTER else None

    def reason(self, node: NodeDef, definition: OpDef, float_attrs: Iterable[str], on_tpu: bool) -> str | None:
        """Why `node`, the attributes `float_attrs` of which hold float32, stays float32; None if it becomes bfloat16.

        Args:
          definition: the OpDef of `node`.
          on_tpu: whether it runs on the TPU, whose kernels are then asked, or on the CPU.
        """
        listed = self.listed(node.op)
        if listed is not None:
            return listed
        if _OUTSIDE_COMPILATION in node.attr:
            return "runs on the CPU in the midst of TPU code"
        attrs = frozenset(float_attrs)
        if not attrs or node.op in ops.TPU_MARKERS:
            return None
        return _kernel_reason(node.op, attrs, _unwilling_attr(definition, attrs), on_tpu)


def needs_exact_values(node: NodeDef) -> bool:
    """Whether rounding what `node` takes does more than to round what it gives.

    It makes whole numbers or bits, which are others then; or a spectrum, where the noise of rounding covers what is
    quiet.
    """
    if node.op == "Cast":
        made = node.attr["DstT"].type
        return tensors.is_integer(made) or tensors.is_complex(made)
    return node.op in _EDGES or node.op in _REPRESENTATION or node.op in _SPECTRA


def _unwilling_attr(definition: OpDef, attrs: Collection[str]) -> str | None:
    """An attribute that the op's definition does not let be bfloat16."""
    for attr in definition.attr:
        restricted = attr.name in attrs and attr.HasField("allowed_values")
        if restricted and _BFLOAT16 not in attr.allowed_values.list.type:
            return str(attr.name)
    return None


@functools.cache
def _kernel_reason(op: str, attrs: frozenset[str], unwilling: str | None, on_tpu: bool) -> str | None:
    if unwilling is not None:
        return f"is not defined for bfloat16 (attribute {unwilling})"
    device = "TPU" if on_tpu else "CPU"
    found = kernels.tpu_kernels().get(op, []) if on_tpu else kernels.cpu_kernels(op)
    if not found:
        return f"has no {device} kernel"
    return None if kernels.takes(found, attrs, "bfloat16") else f"has no {device} kernel for bfloat16"
