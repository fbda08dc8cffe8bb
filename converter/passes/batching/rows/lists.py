"""Lists of tensors, as loops fill and read them: their value is that of the tensor that stacks them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from converter.passes.batching.rows.folds import lost, unless_constant
from converter.passes.batching.rows.site import Site
from converter.passes.batching.rows.values import CONSTANT, ROWS, Effect, Value, either


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
    if value.axis != ROWS or not site.by_turn:
        return lost(site, Effect.UNKNOWN, "picks rows by an index that is no plain counter")
    return [replace(value, axis=None, rows=False, turn=site.function if value.rows else "")]


def set_item(site: Site, values: Sequence[Value]) -> list[Value] | None:
    """SetItem and PushBack."""
    item = values[2] if site.node.op == "TensorListSetItem" else values[1]
    if item.turn and site.by_turn and item.turn == site.function:
        stored = replace(item, axis=ROWS, rows=True, turn="")
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
