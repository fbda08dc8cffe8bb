"""What cannot go to the TPU, or across its boundary."""

from __future__ import annotations

from collections.abc import Iterator

from tensorflow.core.framework import types_pb2

from converter import calls, graph_edit, ops
from converter.model import FunctionDef, Model, NodeDef

_BOUNDARY_FORBIDDEN = {types_pb2.DT_STRING: "string", types_pb2.DT_VARIANT: "variant"}


def boundary_problems(model: Model, function: FunctionDef) -> list[str]:
    """Arguments and results of `function` that cannot cross between CPU and TPU, one sentence part each."""
    problems = []
    for i, argument in enumerate(function.signature.input_arg):
        if argument.type in _BOUNDARY_FORBIDDEN:
            problems.append(f'argument "{_user_name(function, i)}" is a {_BOUNDARY_FORBIDDEN[argument.type]} tensor')
        elif any(h.dtype in _BOUNDARY_FORBIDDEN for h in argument.handle_data):
            problems.append(f'argument "{_user_name(function, i)}" is a variable of strings or variants')
        elif argument.type == types_pb2.DT_RESOURCE:
            user = _foreign_resource_use(model, function, i, set())
            if user is not None:
                problems.append(
                    f'argument "{_user_name(function, i)}" is a resource that is no variable (a lookup table or '
                    f"the like, used by op {user.op})"
                )
    for result in function.signature.output_arg:
        kind = {**_BOUNDARY_FORBIDDEN, types_pb2.DT_RESOURCE: "resource"}.get(result.type)
        if kind is not None:
            problems.append(f'result "{result.name}" is a {kind} tensor')
    return problems


def _user_name(function: FunctionDef, index: int) -> str:
    attrs = function.arg_attr[index].attr if index in function.arg_attr else {}
    given = attrs["_user_specified_name"].s.decode() if "_user_specified_name" in attrs else ""
    # Captures are recorded there by a number that says nothing.
    return str(function.signature.input_arg[index].name) if given.isdigit() or not given else given


def _foreign_resource_use(
    model: Model, function: FunctionDef, index: int, seen: set[tuple[str, int]]
) -> NodeDef | None:
    """A node, in `function` or what it calls, that uses resource argument `index` with an op the TPU does not have."""
    key = (function.signature.name, index)
    if key in seen:
        return None
    seen.add(key)
    aliases = {function.signature.input_arg[index].name}
    for node in function.node_def:
        if node.op == "Identity" and graph_edit.data_inputs(node)[0] in aliases:
            aliases.add(f"{node.name}:output:0")
    for node in function.node_def:
        for position, ref in enumerate(graph_edit.data_inputs(node)):
            if ref not in aliases or node.op == "Identity":
                continue
            callees = calls.called_functions(node, model)
            if not callees:
                # What saves a variable touches it on the CPU only.
                if node.op not in ops.tpu_kernels() and node.op not in ops.UNTOUCHING:
                    return node
                continue
            for callee in callees:
                argument = position - (node.op in ops.BRANCHES)
                if 0 <= argument < len(model.functions[callee].signature.input_arg):
                    found = _foreign_resource_use(model, model.functions[callee], argument, seen)
                    if found is not None:
                        return found
    return None


def ops_without_tpu_kernel(model: Model, function: str, graph: dict[str, list[str]]) -> list[str]:
    """Op types without any TPU kernel in `function` and in all that it calls, sorted; `graph` is the call graph."""
    reached = calls.reachable(graph, [function])
    return sorted({op for name in reached for op in _without_kernel(model, model.functions[name])})


def _without_kernel(model: Model, function: FunctionDef) -> Iterator[str]:
    for node in function.node_def:
        if node.op not in ops.tpu_kernels() and node.op not in model.functions:
            yield node.op
