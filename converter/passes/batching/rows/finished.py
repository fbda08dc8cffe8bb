"""Loops that run until all rows are done, and leave a row as it is once it is done itself.

Alone, such a row stops where its company would have gone on without changing it. What a turn does to a row that is done
is found by taking "done" for true in the loop's body: `where(done, old, new)` is `old` then.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from converter.graph import ops, refs, tensors
from converter.graph.protos import FunctionDef, NodeDef
from converter.passes.batching.rows.turns import made, nodes_of, plain_counters, stays, terms

_Nodes = Mapping[str, NodeDef]
_Mark = str | bool | None
"""What a tensor holds for a row that is done: a truth value, _ZERO, the argument that it equals, or None."""
_ZERO = "0"
# What "counter op length" is once the counter has reached the length, and "length op counter".
_REACHED = {"GreaterEqual": True, "Less": False}
_REACHED_TURNED = {"LessEqual": True, "Greater": False}
_SPREADING = {
    *("BroadcastTo", "ExpandDims", "Reshape", "Squeeze", "StopGradient", "StridedSlice", "Tile", "Transpose"),
}


@dataclass(frozen=True)
class Loop:
    """A loop and the function that it stands in.

    Attributes:
      inputs: the tensors that it begins with.
      outside: the nodes beside it.
      is_steady: whether a tensor beside the loop is the same for all rows and batches.
      is_steady_in_cond: the same of a tensor of the loop's condition.
    """

    cond: FunctionDef
    body: FunctionDef
    inputs: Sequence[str]
    outside: _Nodes
    is_steady: Callable[[str], bool]
    is_steady_in_cond: Callable[[str], bool]


def kept(loop: Loop) -> list[bool]:
    """Which variables of the loop end, for each row, as if the row had been alone."""
    nodes = nodes_of(loop.cond)
    rows_decide = [term for term in terms(loop.cond, nodes) if not loop.is_steady_in_cond(term)]
    turn = _turn_when_done(loop, rows_decide[0], nodes) if len(rows_decide) == 1 else None
    return [same or (turn is not None and turn.keeps(i)) for i, same in enumerate(stays(loop.body))]


def _turn_when_done(loop: Loop, term: str, nodes: _Nodes) -> _Turn | None:
    """A turn as it is for a row for which, if it were alone, `term` of the condition would be false."""
    arguments = [a.name for a in loop.cond.signature.input_arg]
    op, inputs = made(term, nodes)
    if op in ("Less", "Greater"):
        counter, bound = inputs if op == "Less" else reversed(inputs)
        if counter not in arguments or bound not in arguments:
            return None
        return _turn_when_reached(loop, arguments.index(counter), arguments.index(bound))
    done = False
    if op == "LogicalNot":
        op, inputs = made(inputs[0], nodes)
        done = True
    if op != ("All" if done else "Any"):
        return None
    flag = inputs[0]
    op, inputs = made(flag, nodes)
    if op == "LogicalNot":
        flag, done = inputs[0], not done
    if flag not in arguments:
        return None
    turn = _Turn(loop, {arguments.index(flag): done})
    return turn if turn.keeps(arguments.index(flag)) else None


def _turn_when_reached(loop: Loop, counter: int, bound: int) -> _Turn | None:
    """Of a loop up to the greatest of the rows' lengths, or to a limit if that is less."""
    same = stays(loop.body)
    if counter not in plain_counters(loop.body) or not same[bound]:
        return None
    ref = loop.inputs[bound]
    op, inputs = made(ref, loop.outside)
    while op in ("Maximum", "Minimum"):
        others = [each for each in inputs if not loop.is_steady(each)]
        if len(others) != 1:
            return None
        op, inputs = made(others[0], loop.outside)
    if op != "Max":
        return None
    given = [refs.before_identities(each, loop.outside) for each in loop.inputs]
    return _Turn(loop, {}, counter, {i for i, each in enumerate(given) if each == inputs[0] and same[i]})


class _Turn:
    """A loop's body as it is for a row that is done."""

    def __init__(
        self, loop: Loop, flags: Mapping[int, bool], counter: int | None = None, reached: set[int] | None = None
    ) -> None:
        """
        Args:
          flags: arguments of the body that are true, or false, of such a row.
          counter: an argument that has reached the row's length, which are the arguments `reached`.
        """
        self._loop = loop
        self._nodes = nodes_of(loop.body)
        self._stays = stays(loop.body)
        self._arguments = [a.name for a in loop.body.signature.input_arg]
        self._flags = {self._arguments[i]: value for i, value in flags.items()}
        self._counter = "" if counter is None else self._arguments[counter]
        self._lengths = {self._arguments[i] for i in reached or ()}
        self._marks: dict[str, _Mark] = {}

    def keeps(self, index: int) -> bool:
        """Whether variable `index` is after the turn what it was before."""
        body, argument = self._loop.body, self._arguments[index]
        result = body.ret[body.signature.output_arg[index].name]
        mark = self._mark(result)
        return mark == self._flags.get(argument, argument) or self._adds_zeros(index, result)

    def _adds_zeros(self, index: int, result: str) -> bool:
        """Whether it is a list in which nothing is, and into which each turn puts a zero in a place of its own."""
        op, inputs = made(result, self._nodes)
        begun, _ = made(self._loop.inputs[index], self._loop.outside)
        if op != "TensorListSetItem" or begun != "TensorListReserve" or inputs[0] != self._arguments[index]:
            return False
        node = refs.maker_of(result, self._nodes)
        if node is None or ops.grows_list(node):
            return False  # a list that grows has as many items as there were turns
        counters = {self._arguments[i] for i in plain_counters(self._loop.body)}
        return inputs[1] in counters and self._mark(inputs[2]) in (_ZERO, False)

    def _mark(self, ref: str) -> _Mark:
        ref = refs.before_identities(ref, self._nodes)
        if ref not in self._marks:
            self._marks[ref] = self._marked(ref)
        return self._marks[ref]

    def _marked(self, ref: str) -> _Mark:
        if ref in self._arguments:
            index = self._arguments.index(ref)
            if ref in self._flags:
                return self._flags[ref]
            is_zero = self._stays[index] and _constant(self._loop.inputs[index], self._loop.outside) == _ZERO
            return _ZERO if is_zero else ref
        op, inputs = made(ref, self._nodes)
        if op in _REACHED and inputs[0] == self._counter and inputs[1] in self._lengths:
            return _REACHED[op]
        if op in _REACHED_TURNED and inputs[1] == self._counter and inputs[0] in self._lengths:
            return _REACHED_TURNED[op]
        if op in ("LogicalOr", "LogicalAnd"):
            marks = [self._mark(each) for each in inputs]
            decides = op == "LogicalOr"
            if decides in marks:
                return decides
            return None if any(mark is not (not decides) for mark in marks) else not decides
        if op == "LogicalNot":
            mark = self._mark(inputs[0])
            return not mark if isinstance(mark, bool) else None
        if op in ("Select", "SelectV2"):
            chosen = self._mark(inputs[0])
            return self._mark(inputs[1 if chosen else 2]) if isinstance(chosen, bool) else None
        if op in _SPREADING:
            mark = self._mark(inputs[0])
            return mark if mark == _ZERO or isinstance(mark, bool) else None
        return _constant(ref, self._nodes)


def _constant(ref: str, nodes: _Nodes) -> _Mark:
    """What a constant tensor holds everywhere, if it is a truth value or zero."""
    const = refs.maker_of(ref, nodes)
    op, inputs = made(ref, nodes)
    if op == "ZerosLike":
        return _ZERO
    if op == "Fill":
        return _constant(inputs[1], nodes)
    if const is None or op != "Const":
        return None
    value = tensors.values(const.attr["value"].tensor)
    if value.dtype.kind == "b" and value.size and (value == value.flat[0]).all():
        return bool(value.flat[0])
    return _ZERO if value.dtype.kind in "fiu" and not value.any() else None
