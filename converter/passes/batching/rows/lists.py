"""Lists of tensors, as loops fill and read them: their value is that of the tensor that stacks them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from converter.passes.batching.rows.folds import lost, unless_constant
from converter.passes.batching.rows.site import Site
from converter.passes.batching.rows.values import CONSTANT, Effect, Turn, Value, either


def same(site: Site, values: Sequence[Value]) -> list[Value] | None:
    return [values[0]] * len(site.outputs)


def each_its_own(site: Site, values: Sequence[Value]) -> list[Value] | None:
    return list(values)


def new_list(site: Site, values: Sequence[Value]) -> list[Value] | None:
    return [CONSTANT]


def get_item(site: Site, values: Sequence[Value]) -> list[Value] | None:
    """Of a list of rows, the row of this turn; of a list of steps, the step with all rows."""
    value = values[0]
    if value.axis is None:
        return [value]
    if value.axis.dim > 0:
        return [replace(value, axis=replace(value.axis, dim=value.axis.dim - 1))]
    if not value.by_row:
        return [replace(value, axis=None)]
    if site.constant(1) is not None:
        return lost(site, Effect.MIXES, "gives the same row to all")
    if not site.by_turn:
        return lost(site, Effect.UNKNOWN, "picks rows by an index that is no plain counter")
    return [replace(value, axis=None, rows=False, turn=Turn(site.function, value.axis) if value.rows else None)]


def index_by_turn(site: Site, values: Sequence[Value]) -> list[Value] | None:
    """StridedSlice and Gather, if they take of a tensor what a list of its rows would have in this turn."""
    if not site.by_turn or values[0].axis is None or values[0].axis.dim > 0:
        return None
    at = site.constant(2) if site.node.op == "GatherV2" else 0
    if at is None or int(at) != 0:
        return None
    return get_item(site, values)


def set_item(site: Site, values: Sequence[Value]) -> list[Value] | None:
    """SetItem and PushBack."""
    item = values[2] if site.node.op == "TensorListSetItem" else values[1]
    if item.turn and site.by_turn and item.turn.body == site.function:
        stored = replace(item, axis=item.turn.axis, rows=True, turn=None)
    elif item.turn and item.turn.body == site.function:
        return lost(site, Effect.UNKNOWN, "stores rows by an index that is no plain counter")
    elif values[0].by_row and values[0].axis is not None and values[0].axis.dim == 0 and not item.turn:
        return lost(site, Effect.UNKNOWN, "stores what is of no row among rows")
    elif item.turn and not values[0].rows:
        stored = item
    else:
        stored = replace(item, axis=None if item.axis is None else replace(item.axis, dim=item.axis.dim + 1))
    return [either([values[0], stored], site.cause(Effect.UNKNOWN, "stores rows beside other things"))]


def pop_item(site: Site, values: Sequence[Value]) -> list[Value] | None:
    axis = values[0].axis
    if axis is None:
        return [values[0]] * 2
    if axis.dim == 0:
        return unless_constant(site, values[0], Effect.UNKNOWN, "takes the last row from a list")
    return [values[0], replace(values[0], axis=replace(axis, dim=axis.dim - 1))]
