"""The BatchFunction op: what it cannot take, how it is built, and functions fitted to it."""

from __future__ import annotations

from collections.abc import MutableMapping, Sequence
from typing import Any, TypeVar

from google.protobuf.message import Message

from converter.analysis import tpu
from converter.graph import refs
from converter.graph.nodes import func_attr, make_node, type_list_attr
from converter.graph.protos import DT_RESOURCE, DT_VARIANT, FunctionDef, NodeDef, TensorShapeProto
from converter.passes.batching.attributes import write_attributes
from converter.passes.batching.targets import Target

_M = TypeVar("_M", bound=Message)
_UNBATCHABLE = {DT_RESOURCE: "a resource", DT_VARIANT: "a variant"}


def obstacle(function: FunctionDef, inputs: Sequence[int]) -> str:
    """Why the batching op could not even be built; empty if it can."""
    arguments, results = function.signature.input_arg, function.signature.output_arg
    if not inputs:
        return (
            "it has no input that belongs to the request, found only variables and constants; the batching op "
            "needs at least one. Name a function that takes the request's tensors."
        )
    if not results:
        return "it returns nothing; the batching op needs at least one output to split. Let it return its results."
    for i in inputs:
        if arguments[i].type in _UNBATCHABLE:
            return (
                f'its argument "{arguments[i].name}" is {_UNBATCHABLE[arguments[i].type]} that is not the same in '
                "every call, and only tensors with rows can be batched. Name a function that takes plain tensors, "
                "and captures its variables."
            )
    for result in results:
        if result.type in _UNBATCHABLE:
            return (
                f'its result "{result.name}" is {_UNBATCHABLE[result.type]}, and only tensors with rows can be '
                "batched. Name a function that returns plain tensors."
            )
    return ""


def argument_order(inputs: Sequence[int], count: int) -> list[int]:
    return [*inputs, *(i for i in range(count) if i not in inputs)]


def batch_node(name: str, call: NodeDef, inner: FunctionDef, target: Target, queue: str) -> NodeDef:
    """The BatchFunction that takes the place of `call` (its inputs may end in a TPU ordinal)."""
    given = refs.data_inputs(call)[: len(inner.signature.input_arg)]
    types = [a.type for a in inner.signature.input_arg]
    count = len(target.inputs)
    kept = {k: call.attr[k] for k in ("_output_shapes", "Tout") if k in call.attr}
    node = make_node(
        name,
        tpu.BATCH_CALL,
        [given[i] for i in argument_order(target.inputs, len(given))],
        f=func_attr(inner.signature.name),
        Tin=type_list_attr(types[:count]),
        Tcaptured=type_list_attr(types[count:]),
        shared_name=queue,
        **kept,
    )
    write_attributes(node, target.attributes.values())
    return node


def permute_arguments(function: FunctionDef, order: Sequence[int]) -> None:
    """Reorders a function's arguments: argument i becomes what `order[i]` was. Callers are not touched."""
    arguments = [_copy(a) for a in function.signature.input_arg]
    del function.signature.input_arg[:]
    function.signature.input_arg.extend(arguments[i] for i in order)
    if "_input_shapes" in function.attr:
        recorded = function.attr["_input_shapes"].list
        if len(recorded.shape) == len(order):
            given = [_copy(s) for s in recorded.shape]
            del recorded.shape[:]
            recorded.shape.extend(given[i] for i in order)
    _permute_keys(function.arg_attr, order)
    _permute_keys(function.resource_arg_unique_id, order)


def _permute_keys(by_argument: MutableMapping[int, Any], order: Sequence[int]) -> None:
    """Of a proto's map from arguments: to messages, which are copied into place, or to plain values; hence Any."""
    old = {i: _copy(v) if hasattr(v := by_argument[i], "CopyFrom") else v for i in list(by_argument)}
    by_argument.clear()
    for new, previous in enumerate(order):
        if previous not in old:
            continue
        if hasattr(old[previous], "CopyFrom"):
            by_argument[new].CopyFrom(old[previous])
        else:
            by_argument[new] = old[previous]


def _copy(message: _M) -> _M:
    copy = type(message)()
    copy.CopyFrom(message)
    return copy


def free_batch_dimension(function: FunctionDef, inputs: int) -> None:
    """Recorded shapes of the request's tensors no longer promise a number of rows: a batch has more."""
    recorded: list[TensorShapeProto] = []
    for i in range(inputs):
        if i in function.arg_attr and "_output_shapes" in function.arg_attr[i].attr:
            recorded += function.arg_attr[i].attr["_output_shapes"].list.shape
    if "_input_shapes" in function.attr:
        recorded += function.attr["_input_shapes"].list.shape[:inputs]
    for shape in recorded:
        if shape.dim:
            shape.dim[0].size = -1
