"""The BatchFunction op: builds it, reads and updates its attributes, and fits functions to it."""

from __future__ import annotations

from collections.abc import MutableMapping, Sequence
from typing import Any, TypeAlias, TypeVar

from google.protobuf.message import Message

from converter.analysis import tpu
from converter.errors import ConversionError
from converter.graph import edit
from converter.graph.edit import make_node, type_list_attr
from converter.graph.protos import FunctionDef, NodeDef, TensorShapeProto
from converter.options.slices import BatchOptions
from converter.passes.batching.plan import Target, Update
from converter.passes.pass_result import Json

_M = TypeVar("_M", bound=Message)
Values: TypeAlias = dict[str, Any]
"""Attributes of the batching op by name; Any, as the name tells which is an int, a bool or a tuple of ints."""

# Defaults of the op, and of the reference for what the op requires.
_DEFAULTS: Values = {
    "num_batch_threads": 0,
    "batch_timeout_micros": 0,
    "max_enqueued_batches": 10,
    "allowed_batch_sizes": (),
    "enable_large_batch_splitting": False,
}
_REQUIRED = ("num_batch_threads", "max_batch_size", "batch_timeout_micros")


def argument_order(inputs: Sequence[int], count: int) -> list[int]:
    return [*inputs, *(i for i in range(count) if i not in inputs)]


def batch_node(name: str, call: NodeDef, inner: FunctionDef, target: Target, queue: str) -> NodeDef:
    """The BatchFunction that takes the place of `call` (its inputs may end in a TPU ordinal)."""
    given = edit.data_inputs(call)[: len(inner.signature.input_arg)]
    types = [a.type for a in inner.signature.input_arg]
    count = len(target.inputs)
    kept = {k: call.attr[k] for k in ("_output_shapes", "Tout") if k in call.attr}
    node = make_node(
        name,
        tpu.BATCH_CALL,
        [given[i] for i in argument_order(target.inputs, len(given))],
        f=edit.func_attr(inner.signature.name),
        Tin=type_list_attr(types[:count]),
        Tcaptured=type_list_attr(types[count:]),
        shared_name=queue,
        **kept,
    )
    _set_values(node, _values(target.options, _DEFAULTS))
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


# --- attributes -------------------------------------------------------------------------------------------------


def _values(options: BatchOptions, unset: Values) -> Values:
    """Value of every attribute that options decide; those left unset have the values in `unset`."""
    given = {
        "num_batch_threads": options.num_batch_threads,
        "batch_timeout_micros": options.batch_timeout_micros,
        "max_enqueued_batches": options.max_enqueued_batches,
        "allowed_batch_sizes": options.allowed_batch_sizes or None,
    }
    return {
        **unset,
        **{k: v for k, v in given.items() if v is not None},
        "max_batch_size": options.max_batch_size,
        "enable_large_batch_splitting": options.enable_large_batch_splitting,
    }


def present_values(node: NodeDef) -> Values:
    values: Values = dict(_DEFAULTS)
    for key in ("num_batch_threads", "max_batch_size", "batch_timeout_micros", "max_enqueued_batches"):
        if key in node.attr:
            values[key] = int(node.attr[key].i)
    if "allowed_batch_sizes" in node.attr:
        values["allowed_batch_sizes"] = tuple(node.attr["allowed_batch_sizes"].list.i)
    if "enable_large_batch_splitting" in node.attr:
        values["enable_large_batch_splitting"] = bool(node.attr["enable_large_batch_splitting"].b)
    return values


def updated_values(update: Update) -> Values:
    values = _values(update.options, present_values(update.node))
    sizes, largest = values["allowed_batch_sizes"], values["max_batch_size"]
    splits = values["enable_large_batch_splitting"]
    if sizes and (sizes[-1] > largest or (not splits and sizes[-1] != largest)):
        relation = "be at most" if splits else "equal"
        raise ConversionError(
            f'The batching op "{update.node.name}" of "{update.name}" keeps its allowed_batch_sizes '
            f"{list(sizes)}, whose last must {relation} max_batch_size: {largest}. Give allowed_batch_sizes that fit, "
            f"or `max_batch_size: {sizes[-1]}`."
        )
    return values


def update_node(update: Update) -> list[str]:
    """Rule 3; returns what changed, in words."""
    before, after = present_values(update.node), updated_values(update)
    changed = {k: v for k, v in after.items() if before.get(k) != v}
    _set_values(update.node, changed)
    return [f"{k} {_text(before.get(k))} -> {_text(v)}" for k, v in changed.items()]


def _text(value: object) -> str:
    return str(list(value)) if isinstance(value, tuple) else str(value)


def _set_values(node: NodeDef, values: Values) -> None:
    """Rule 4: older runtimes reject attributes that they do not know, so what equals a default is not written."""
    for key, value in values.items():
        if key not in _REQUIRED and value == _DEFAULTS[key]:
            node.attr.pop(key, None)
        else:
            attr = edit.int_list_attr(value) if isinstance(value, tuple) else edit.plain_attr(value)
            node.attr[key].CopyFrom(attr)


def padding_table(allowed: Sequence[int], max_batch_size: int) -> list[Json]:
    """What a batch of `rows` rows is padded to, one entry for each range of sizes that share an answer.

    `waste` is the largest share of padding in the range, from 0 to 1. `padded_to` is None for rows that are split into
    batches of at most the last allowed size.
    """
    if not allowed:
        return [{"rows": _range(1, max_batch_size), "padded_to": "the same", "waste": 0.0}]
    table: list[Json] = []
    first = 1
    for size in allowed:
        table.append({"rows": _range(first, size), "padded_to": size, "waste": round((size - first) / size, 3)})
        first = size + 1
    if first <= max_batch_size:
        table.append({"rows": _range(first, max_batch_size), "padded_to": None, "waste": None})
    return table


def _range(first: int, last: int) -> str:
    return str(first) if first == last else f"{first}-{last}"
