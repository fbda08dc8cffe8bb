"""Conversion time against the size of a function's graph: twice the nodes must take about twice the time.

For each size this writes a SavedModel whose TPU function has that many nodes, converts it without optimizations in
one process, and prints CPU seconds, and seconds by stage. The shapes:

    flat      one function, a chain of additions and multiplications with a variable read now and then
    nested    the same nodes in functions of 50 nodes, called in a tree, some of them through If
    wide      the same nodes, all reading the function's argument and summed up at the end
    variables the same nodes, every tenth of which reads a variable that is an argument of its own

    python -m benchmarks.linear [--sizes 5000,10000,20000] [--repeats 5] [--optimizations] [--count_flops]

The graphs are made of protos directly, since tracing them would take far longer than converting.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from tensorflow.core.framework import function_pb2, types_pb2
from tensorflow.core.protobuf import saved_model_pb2

from converter import ConvertSettings, convert
from converter.graph.nodes import const_node, func_attr, make_node, type_attr, type_list_attr

FLOAT, RESOURCE = types_pb2.DT_FLOAT, types_pb2.DT_RESOURCE
T = type_attr(FLOAT)
TPU_FUNCTION = 'tpu_functions { function_alias: "tpu_func" }'
OPTIONS = f"{TPU_FUNCTION} disable_default_optimizations: true"
NODES_PER_FUNCTION = 50
READ_EVERY = 20
VARIABLE_EVERY = 10


def function(name: str, nodes: list[Any], result: str, variables: Sequence[str] = ("v",)) -> Any:
    """A function (x: float32, v: resource) -> (y: float32), or with other `variables`."""
    made = function_pb2.FunctionDef(node_def=nodes, ret={"y": result})
    made.signature.name = name
    made.signature.is_stateful = True
    made.signature.input_arg.add(name="x", type=FLOAT)
    for variable in variables:
        made.signature.input_arg.add(name=variable, type=RESOURCE)
    made.signature.output_arg.add(name="y", type=FLOAT)
    return made


def chain(prefix: str, count: int, ref: str) -> tuple[list[Any], str]:
    """`count` nodes one behind the other, from the tensor `ref`; the nodes and the last tensor."""
    nodes: list[Any] = []
    last_read = ""
    for number in range(count):
        name = f"{prefix}block_{number // 100}/node_{number}"
        if number % READ_EVERY == 0:
            nodes.append(make_node(name, "ReadVariableOp", ["v"], dtype=T))
            last_read = f"{name}:value:0"
        else:
            nodes.append(make_node(name, ("AddV2", "Mul")[number % 2], [ref, last_read], T=T))
            ref = f"{name}:z:0"
    return nodes, ref


def flat(size: int) -> list[Any]:
    """One function."""
    return [function("__inference_tpu_func_1", *chain("", size, "x"))]


def wide(size: int) -> list[Any]:
    """One function whose nodes all have the same input and the same consumer."""
    nodes = [make_node(f"node_{i}", "Neg", ["x"], T=T) for i in range(size - 1)]
    nodes.append(make_node("sum", "AddN", [f"{n.name}:y:0" for n in nodes], N=size - 1, T=T))
    return [function("__inference_tpu_func_1", nodes, "sum:sum:0")]


def variables(size: int) -> list[Any]:
    """One function of many variables."""
    names = [f"v_{i}" for i in range(size // VARIABLE_EVERY)]
    nodes: list[Any] = []
    ref = "x"
    for i, name in enumerate(names):
        nodes.append(make_node(f"read_{i}", "ReadVariableOp", [name], dtype=T))
        for j in range(VARIABLE_EVERY - 1):
            node = make_node(f"node_{i}_{j}", ("AddV2", "Mul")[j % 2], [ref, f"read_{i}:value:0"], T=T)
            nodes.append(node)
            ref = f"{node.name}:z:0"
    return [function("__inference_tpu_func_1", nodes, ref, names)]


def nested(size: int) -> list[Any]:
    """A binary tree of functions, each of which calls its two children, directly or from both branches of an If."""
    count = max(1, size // NODES_PER_FUNCTION)
    functions = []
    for number in range(1, count + 1):
        children = [f"__inference_tpu_func_{c}" for c in (2 * number, 2 * number + 1) if c <= count]
        nodes, ref = chain("", NODES_PER_FUNCTION - 2 * len(children), "x")
        for position, child in enumerate(children):
            call, ref = _call(f"call_{position}", child, ref, kind=(number + position) % 3)
            nodes += call
        functions.append(function(f"__inference_tpu_func_{number}", nodes, ref))
    return functions


def _call(name: str, callee: str, ref: str, kind: int) -> tuple[list[Any], str]:
    callee_attr = func_attr(callee)
    types = type_list_attr([FLOAT, RESOURCE])
    if kind == 0:
        attrs = {"f": callee_attr, "Tin": types, "Tout": type_list_attr([FLOAT])}
        return [make_node(name, "StatefulPartitionedCall", [ref, "v"], **attrs)], f"{name}:output:0"
    condition = const_node(f"{name}/condition", True)
    attrs = {"then_branch": callee_attr, "else_branch": callee_attr, "Tcond": type_attr(types_pb2.DT_BOOL)}
    node = make_node(
        name, "If", [f"{condition.name}:output:0", ref, "v"], **attrs, Tin=types, Tout=type_list_attr([FLOAT])
    )
    return [condition, node], f"{name}:output:0"


def write_model(functions: list[Any], directory: Path) -> int:
    """Writes a SavedModel that serves the function __inference_tpu_func_1; returns its size in bytes."""
    saved_model = saved_model_pb2.SavedModel(saved_model_schema_version=1)
    meta_graph = saved_model.meta_graphs.add()
    meta_graph.meta_info_def.tags.append("serve")
    meta_graph.meta_info_def.function_aliases["__inference_tpu_func_1"] = "tpu_func"
    meta_graph.object_graph_def.nodes.add().user_object.identifier = "_generic_user_object"
    graph = meta_graph.graph_def
    graph.library.function.extend(functions)
    names = [a.name for a in functions[0].signature.input_arg[1:]]
    graph.node.extend(
        [
            make_node("x", "Placeholder", dtype=T),
            *(make_node(name, "VarHandleOp", dtype=T, shared_name=name) for name in names),
            make_node(
                "y",
                "StatefulPartitionedCall",
                ["x", *names],
                f=func_attr("__inference_tpu_func_1"),
                Tin=type_list_attr([FLOAT, *[RESOURCE] * len(names)]),
                Tout=type_list_attr([FLOAT]),
            ),
        ]
    )
    signature = meta_graph.signature_def["serving_default"]
    signature.inputs["x"].name, signature.outputs["y"].name = "x:0", "y:0"
    data: bytes = saved_model.SerializeToString(deterministic=True)
    directory.mkdir()
    (directory / "saved_model.pb").write_bytes(data)
    return len(data)


SHAPES: dict[str, Callable[[int], list[Any]]] = {"flat": flat, "nested": nested, "wide": wide, "variables": variables}


def measure(model: Path, out: Path, repeats: int, options: str, count_flops: bool) -> tuple[float, dict[str, float]]:
    """CPU seconds of a conversion, which other work on the machine disturbs least, and seconds of its stages."""
    runs = []
    for _ in range(repeats):
        start = time.process_time()
        report = convert(model, out, options, ConvertSettings(overwrite=True, count_flops=count_flops))
        seconds = time.process_time() - start
        runs.append((seconds, {**report.seconds, **{p.name: p.seconds for p in report.passes}}))
    return min(runs, key=lambda run: run[0])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", default="5000,10000,20000", help="numbers of nodes, comma-separated")
    parser.add_argument("--repeats", type=int, default=5, help="the best of so many runs counts")
    parser.add_argument("--optimizations", action="store_true", help="with the default optimizations")
    parser.add_argument("--count_flops", action="store_true", help="with FLOPs and bytes in the report")
    arguments = parser.parse_args()
    options = TPU_FUNCTION if arguments.optimizations else OPTIONS
    sizes = [int(size) for size in arguments.sizes.split(",")]
    print("| graph | nodes | functions | MB | CPU s | against the size before | stages |")
    print("|---|---:|---:|---:|---:|---:|---|")
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        # The first conversion pays for imports and caches.
        write_model(flat(100), directory / "warm")
        convert(directory / "warm", directory / "out", OPTIONS)
        for shape, make in SHAPES.items():
            before = None
            for size in sizes:
                functions = make(size)
                model = directory / f"{shape}_{size}"
                megabytes = write_model(functions, model) / 1e6
                seconds, stages = measure(model, directory / "out", arguments.repeats, options, arguments.count_flops)
                ratio = f"{seconds / before:.2f}" if before else ""
                nodes = sum(len(f.node_def) for f in functions)
                told = ", ".join(f"{key} {value:.3f}" for key, value in stages.items())
                print(
                    f"| {shape} | {nodes} | {len(functions)} | {megabytes:.1f} | {seconds:.3f} | {ratio} | {told} |",
                    flush=True,
                )
                before = seconds


if __name__ == "__main__":
    main()
