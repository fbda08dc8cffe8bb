"""What TensorFlow knows of an op: its OpDef, and the dtypes of its inputs and outputs.

An op is either registered with TensorFlow, defined in the model's own `stripped_op_list` (custom ops), or a
function called by its name.
"""

from __future__ import annotations

import enum
import functools
from collections.abc import Iterator
from dataclasses import dataclass

from tensorflow.python.client import pywrap_tf_session
from tensorflow.python.framework.op_def_registry import get as registered_op_def

from converter.graph.model import Model
from converter.graph.protos import ArgDef, AttrValue, DataType, NodeDef, OpDef, OpList

# Ops that run one of the functions in these attributes; their first input chooses which.
BRANCHES = {
    "If": ("then_branch", "else_branch"),
    "StatelessIf": ("then_branch", "else_branch"),
    "Case": ("branches",),
    "StatelessCase": ("branches",),
}
# Ops that run the functions in their attributes cond and body, both on all their inputs.
LOOPS = frozenset({"While", "StatelessWhile"})
# These draw random numbers.
RANDOM = frozenset({
    *("RandomUniform", "RandomStandardNormal", "TruncatedNormal", "ParameterizedTruncatedNormal", "RandomGamma"),
    *("StatelessRandomUniform", "StatelessRandomUniformV2", "StatelessRandomNormal", "StatelessRandomNormalV2"),
    *("StatelessTruncatedNormal", "StatelessTruncatedNormalV2", "StatelessParameterizedTruncatedNormal"),
    *("StatelessRandomGammaV2", "StatelessRandomGammaV3", "StatelessRandomPoisson", "StatelessRandomBinomial"),
    *("StatefulUniform", "StatefulStandardNormal", "StatefulStandardNormalV2", "StatefulTruncatedNormal"),
    *("RandomPoissonV2", "Multinomial", "StatelessMultinomial"),
})  # fmt: skip
# These take a variable and do not touch its values.
UNTOUCHING = frozenset({"VariableShape", "VarIsInitializedOp", "DestroyResourceOp", "DisableCopyOnRead"})
# Through these, tensors enter and leave a TPU cluster.
TPU_MARKERS = frozenset({"TPUReplicatedInput", "TPUReplicatedOutput"})
# Ops that pass values on, in whatever order and number, and compute nothing.
MOVEMENT = frozenset({
    *("Identity", "IdentityN", "StopGradient", "PreventGradient", "Snapshot", "EnsureShape", "XlaSharding"),
    *("Reshape", "Squeeze", "ExpandDims", "Transpose", "ConjugateTranspose", "Pack", "Unpack", "Concat", "ConcatV2"),
    *("Split", "SplitV", "Slice", "StridedSlice", "Gather", "GatherV2", "GatherNd", "Tile", "BroadcastTo", "Pad"),
    *("PadV2", "MirrorPad", "Reverse", "ReverseV2", "ReverseSequence", "Roll", "SpaceToBatchND", "BatchToSpaceND"),
    *("SpaceToDepth", "DepthToSpace", "Select", "SelectV2", "Switch", "Merge", "Enter", "Exit", "NextIteration"),
    *TPU_MARKERS,
})  # fmt: skip


# These pick rows of a table; the second ones, of a variable.
LOOKUPS = frozenset({"Gather", "GatherV2", "GatherNd"})
VARIABLE_LOOKUPS = frozenset({"ResourceGather", "ResourceGatherNd"})


class Product(enum.Enum):
    """Families of ops that sum up products."""

    MATRIX = enum.auto()
    DOT = enum.auto()
    EINSUM = enum.auto()
    CONVOLUTION = enum.auto()
    DEPTHWISE = enum.auto()


_PRODUCT_PREFIXES = {
    Product.MATRIX: ("MatMul", "BatchMatMul"),
    Product.DOT: ("XlaDot",),
    Product.EINSUM: ("Einsum", "XlaEinsum"),
    Product.CONVOLUTION: ("Conv", "FusedConv2DBiasActivation", "_FusedConv2D", "XlaConv"),
    Product.DEPTHWISE: ("DepthwiseConv2d",),
}


def grows_list(node: NodeDef) -> bool:
    """Whether a TensorListSetItem lengthens the list where the index is behind its end."""
    attr = "resize_if_index_out_of_bounds"
    return attr in node.attr and node.attr[attr].b


class MissingAttributeError(ValueError):
    """A node lacks an attribute that its op requires."""


@dataclass(frozen=True)
class ArgSlot:
    """One tensor of a node: which ArgDef it belongs to, its index inside that arg, its dtype.

    `attr` and `attr_index` name the attribute that holds the dtype: a type attr (`attr_index` None), an element
    of a list(type) attr, or no attribute ("") where the op fixes the dtype.
    """

    arg: str
    index: int
    dtype: DataType
    attr: str
    attr_index: int | None


@functools.cache
def product(op: str) -> Product | None:
    """The family of an op that sums up products, gradients of such ops included; None for any other op."""
    return next((family for family, prefixes in _PRODUCT_PREFIXES.items() if op.startswith(prefixes)), None)


@functools.cache
def registered() -> tuple[str, ...]:
    """The names of all ops that TensorFlow registers."""
    data = pywrap_tf_session.TF_GetAllOpList()
    found = OpList.FromString(pywrap_tf_session.TF_GetBuffer(data))
    return tuple(op.name for op in found.op)


def is_registered(op: str) -> bool:
    """Whether TensorFlow has this op."""
    return registered_op_def(op) is not None


def op_def(op: str, model: Model) -> OpDef | None:
    """The OpDef of `op`; None for a custom op that neither TensorFlow nor the model describes."""
    if op in model.functions:
        return model.functions[op].signature
    known: OpDef | None = registered_op_def(op)
    if known is not None:
        return known
    return next((o for o in model.meta_graph.meta_info_def.stripped_op_list.op if o.name == op), None)


def input_slots(node: NodeDef, definition: OpDef) -> list[ArgSlot]:
    """The data inputs of `node`, in order."""
    return [slot for arg in definition.input_arg for slot in _slots(node, arg, definition)]


def output_slots(node: NodeDef, definition: OpDef) -> list[ArgSlot]:
    """The outputs of `node`, in order."""
    return [slot for arg in definition.output_arg for slot in _slots(node, arg, definition)]


def _slots(node: NodeDef, arg: ArgDef, definition: OpDef) -> Iterator[ArgSlot]:
    if arg.type_list_attr:
        for i, dtype in enumerate(_attr(node, arg.type_list_attr, definition).list.type):
            yield ArgSlot(arg.name, i, dtype, arg.type_list_attr, i)
        return
    dtype = _attr(node, arg.type_attr, definition).type if arg.type_attr else arg.type
    count = _attr(node, arg.number_attr, definition).i if arg.number_attr else 1
    for i in range(count):
        yield ArgSlot(arg.name, i, dtype, arg.type_attr, None)


def _attr(node: NodeDef, name: str, definition: OpDef) -> AttrValue:
    # Reading a missing key of a message map would create it, so look first.
    if name in node.attr:
        return node.attr[name]
    for attr in definition.attr:
        if attr.name == name and attr.HasField("default_value"):
            return attr.default_value
    raise MissingAttributeError(f'node "{node.name}" ({node.op}) has no attribute "{name}"')
