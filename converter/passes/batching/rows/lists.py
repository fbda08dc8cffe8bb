"""Lists of tensors, as loops fill and read them: their value is that of the tensor that stacks them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from converter.passes.batching.rows.folds import lost, unless_constant
from converter.passes.batching.rows.site import Site, extents, growing_axis
from converter.passes.batching.rows.values import CONSTANT, Effect, Turn, Value, either


def same(site: Site, values: Sequence[Value]) -> list[Value] | None:
    return [values[0]] * len(site.outputs)


def each_its_own(site: Site, values: Sequence[Value]) -> list[Value] | None:
    return list(values)


def new_list(site: Site, values: Sequence[Value]) -> list[Value] | None:
    """Without items yet, though perhaps with places for those of all rows."""
    lengths = [view.length(site.outputs[0]) for view in site.views] if site.node.op == "TensorListReserve" else []
    known = extents([(length,) for length in lengths], site.sizes) if lengths else None
    if known is None or known[0] is None or not known[0].grows:
        return [CONSTANT]
    axis = growing_axis(known)
    several = site.cause(Effect.UNKNOWN, "gives a length that is no multiple of the number of rows")
    return [Value(axis, count=None if axis else several)]


def get_item(site: Site, values: Sequence[Value]) -> list[Value] | None:
    """Of a list of rows, the row of this turn; of a list of steps, the step with all rows."""
    value = values[0]
    if value.axis is None:
        return [value]
    if value.axis.dim > 0:
        return [replace(value, axis=replace(value.axis, dim=value.axis.dim - 1))]
    if not value.by_row:
        if (value.axis.outer, value.axis.inner) != (1, 1):
            return lost(site, Effect.UNKNOWN, "picks constants of which there are several for each row")
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
    elif not item.turn and not site.by_turn and _grows(site, values[0]):
        return lost(site, Effect.UNKNOWN, "stores at a certain place among those of the rows")
    elif item.turn and not values[0].rows:
        stored = item
    else:
        stored = replace(item, axis=None if item.axis is None else replace(item.axis, dim=item.axis.dim + 1))
    return [either([values[0], stored], site.cause(Effect.UNKNOWN, "stores rows beside other things"))]


def _grows(site: Site, value: Value) -> bool:
    """Whether a list has more items in a larger batch."""
    lengths = {view.length(site.inputs[0]) for view in site.views}
    return len(lengths) > 1 or (value.axis is not None and value.axis.dim == 0)


def pop_item(site: Site, values: Sequence[Value]) -> list[Value] | None:
    axis = values[0].axis
    if axis is None:
        return [values[0]] * 2
    if axis.dim == 0:
        return unless_constant(site, values[0], Effect.UNKNOWN, "takes the last row from a list")
    return [values[0], replace(values[0], axis=replace(axis, dim=axis.dim - 1))]
