"""What cannot go to the TPU, or across its boundary."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from converter.graph import calls, kernels, ops, refs
from converter.graph.model import Model
from converter.graph.protos import DT_RESOURCE, DT_STRING, DT_VARIANT, FunctionDef, NodeDef

_BOUNDARY_FORBIDDEN = {DT_STRING: "string", DT_VARIANT: "variant"}


def boundary_problems(model: Model, function: FunctionDef) -> list[str]:
    """Arguments and results of `function` that cannot cross between CPU and TPU, one sentence part each."""
    problems = []
    uses = _ResourceUses(model)
    for i, argument in enumerate(function.signature.input_arg):
        if argument.type in _BOUNDARY_FORBIDDEN:
            problems.append(f'argument "{_user_name(function, i)}" is a {_BOUNDARY_FORBIDDEN[argument.type]} tensor')
        elif any(h.dtype in _BOUNDARY_FORBIDDEN for h in argument.handle_data):
            problems.append(f'argument "{_user_name(function, i)}" is a variable of strings or variants')
        elif argument.type == DT_RESOURCE:
            user = uses.foreign(function, i)
            if user is not None:
                problems.append(
                    f'argument "{_user_name(function, i)}" is a resource that is no variable (a lookup table or '
                    f"the like, used by op {user.op})"
                )
    for result in function.signature.output_arg:
        kind = {**_BOUNDARY_FORBIDDEN, DT_RESOURCE: "resource"}.get(result.type)
        if kind is not None:
            problems.append(f'result "{result.name}" is a {kind} tensor')
    return problems


def _user_name(function: FunctionDef, index: int) -> str:
    attrs = function.arg_attr[index].attr if index in function.arg_attr else {}
    given = attrs["_user_specified_name"].s.decode() if "_user_specified_name" in attrs else ""
    # Captures are recorded there by a number that says nothing.
    return str(function.signature.input_arg[index].name) if given.isdigit() or not given else given


@dataclass(frozen=True)
class _Use:
    """A node that takes an argument of its function as data input `position`, and the functions that it calls."""

    node: NodeDef
    position: int
    callees: tuple[str, ...]


class _ResourceUses:
    """Where the arguments of functions are used. Each function is looked through once, however many it has."""

    def __init__(self, model: Model) -> None:
        self._model = model
        self._uses: dict[str, dict[int, list[_Use]]] = {}

    def foreign(self, function: FunctionDef, index: int) -> NodeDef | None:
        """A node, in `function` or what it calls, that uses resource argument `index` with an op no TPU has."""
        seen: set[tuple[str, int]] = set()
        ways = [self._entered(function, index, seen)]
        while ways:
            use = next(ways[-1], None)
            if use is None:
                ways.pop()
            elif use.callees:
                passed = use.position - (use.node.op in ops.BRANCHES)
                ways += [self._entered(self._model.functions[f], passed, seen) for f in reversed(use.callees)]
            # What saves a variable touches it on the CPU only.
            elif use.node.op not in kernels.tpu_kernels() and use.node.op not in ops.UNTOUCHING:
                return use.node
        return None

    def _entered(self, function: FunctionDef, index: int, seen: set[tuple[str, int]]) -> Iterator[_Use]:
        """The uses of an argument, unless it has been seen by the time that the first one is asked for."""
        name = str(function.signature.name)
        if (name, index) in seen:
            return
        seen.add((name, index))
        if name not in self._uses:
            self._uses[name] = self._scanned(function)
        yield from self._uses[name].get(index, ())

    def _scanned(self, function: FunctionDef) -> dict[int, list[_Use]]:
        arguments = {a.name: i for i, a in enumerate(function.signature.input_arg)}
        for node in function.node_def:
            if node.op == "Identity" and (index := arguments.get(refs.data_inputs(node)[0])) is not None:
                arguments[f"{node.name}:output:0"] = index
        uses: dict[int, list[_Use]] = {}
        for node in function.node_def:
            if node.op == "Identity":
                continue
            taken = [(i, ref) for i, ref in enumerate(refs.data_inputs(node)) if ref in arguments]
            callees = tuple(calls.called_functions(node, self._model)) if taken else ()
            for position, ref in taken:
                uses.setdefault(arguments[ref], []).append(_Use(node, position, callees))
        return uses


def ops_without_tpu_kernel(model: Model, function: str) -> list[str]:
    """Op types without any TPU kernel in `function` and in all that it calls, sorted."""
    reached = calls.call_graph(model).reachable([function])
    return sorted({op for name in reached for op in _without_kernel(model, model.functions[name])})


def _without_kernel(model: Model, function: FunctionDef) -> Iterator[str]:
    for node in function.node_def:
        if node.op not in kernels.tpu_kernels() and node.op not in model.functions:
            yield node.op
