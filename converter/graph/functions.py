"""Functions of the library: how new ones are named, cloned and outlined, and what their results look like."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence

from converter.graph import outside, shapes
from converter.graph.model import Model, Scope
from converter.graph.nodes import UniqueNames, func_attr, make_node, shape_list_attr, type_list_attr
from converter.graph.protos import FunctionDef, NodeDef, TensorShapeProto
from converter.graph.refs import output_number, producer_of
from converter.graph.scope_index import ScopeIndex
from converter.graph.shapes import RECORDED

# TensorFlow's serving metrics take functions with these in their names for another converter's.
_RESERVED_NAME_PARTS = {
    "tpu_func_0": "tpu_fn_0",
    "_with_batch": "_batched",
    "_optim": "_opt_im",
    "tpu_fn_icv2_": "tpu_fn_",
}
_TRACED_NAME = re.compile(r"^(__inference_.*?)_(\d+)$")


def function_name(model: Model, original: str, suffix: str, taken: Collection[str] = ()) -> str:
    """A new function's name, made of the one it comes from: __inference_f_23 + body -> __inference_f_body_23.

    The loader strips the trailing number, so the name that users see in a profile stays short. It is none of `taken`,
    the names that functions to come will have.
    """
    traced = _TRACED_NAME.match(original)
    stem, uid = (traced[1], f"_{traced[2]}") if traced else (original, "")
    number = 0
    while True:
        name = f"{stem}_{suffix}{number or ''}{uid}"
        for reserved, harmless in _RESERVED_NAME_PARTS.items():
            name = name.replace(reserved, harmless)
        if name not in model.functions and name not in taken:
            return name
        number += 1


def result_shapes(function: FunctionDef) -> list[TensorShapeProto]:
    """The TensorShapeProto of each result as the exporter recorded it (`_output_shapes`); else of unknown rank."""
    index = ScopeIndex(Scope.of(function))
    return [_recorded_shape(function, index, function.ret[r.name]) for r in function.signature.output_arg]


def _recorded_shape(function: FunctionDef, index: ScopeIndex, ref: str) -> TensorShapeProto:
    argument, producer = index.arguments.get(producer_of(ref)), index.producer(ref)
    if argument is not None:
        attrs = function.arg_attr[argument].attr if argument in function.arg_attr else {}
    else:
        attrs = producer.attr if producer is not None else {}
    recorded = attrs[RECORDED].list.shape if RECORDED in attrs else ()
    # An op with several output args counts from 0 in each, so only single-output records are unambiguous there.
    unambiguous = len(recorded) == 1 or argument is not None or _one_output_arg(producer)
    number = output_number(ref)
    return recorded[number] if unambiguous and number < len(recorded) else shapes.to_proto(None)


def _one_output_arg(node: NodeDef | None) -> bool:
    return node is not None and ("Tout" in node.attr or "output_types" in node.attr)


def clone_function(model: Model, name: str, suffix: str) -> FunctionDef:
    """Adds a copy of function `name` under a new name and returns it."""
    return copy_function(model, name, function_name(model, name, suffix))


def copy_function(model: Model, name: str, new_name: str) -> FunctionDef:
    """Adds a copy of function `name` that is called `new_name`, and returns it."""
    copy = FunctionDef()
    copy.CopyFrom(model.functions[name])
    copy.signature.name = new_name
    # api_implements makes grappler swap whole functions for each other by interface name.
    copy.attr.pop("api_implements", None)
    return model.add_function(copy)


def outline(model: Model, name: str, suffix: str) -> tuple[FunctionDef, NodeDef]:
    """Moves the body of function `name` into a new function and leaves a single call of it.

    before:  F(x, v) { n1 = ...; n2 = ...; return n2 }
    after:   F(x, v) { call = StatefulPartitionedCall[f=F_suffix](x, v); return call }
             F_suffix(x, v) { n1 = ...; n2 = ...; return n2 }

    F keeps its name, arguments, arg_attr and handle_data, so neither the object graph nor any caller changes.
    Captured tensors of the object graph that lived in the body follow it. Returns the new function and F's call.
    """
    outer = model.functions[name]
    inner = clone_function(model, name, suffix)
    outside.follow_body(model, outer, inner)
    arguments = outer.signature.input_arg
    call = make_node(
        UniqueNames(model.scope(name))("call"),
        "StatefulPartitionedCall",
        [a.name for a in arguments],
        f=func_attr(inner.signature.name),
        Tin=type_list_attr(a.type for a in arguments),
        Tout=type_list_attr(r.type for r in outer.signature.output_arg),
        _output_shapes=shape_list_attr(result_shapes(outer)),
    )
    replace_body(outer, [call], {r.name: f"{call.name}:output:{i}" for i, r in enumerate(outer.signature.output_arg)})
    return inner, outer.node_def[0]


def replace_body(
    function: FunctionDef, nodes: Sequence[NodeDef], results: Mapping[str, str], control: Sequence[str] | None = None
) -> None:
    """Gives a function new nodes, results, and nodes that must run (`control`, by default the last node)."""
    del function.node_def[:]
    function.node_def.extend(nodes)
    function.ret.clear()
    for result, ref in results.items():
        function.ret[result] = ref
    function.control_ret.clear()
    del function.signature.control_output[:]
    for must_run in [nodes[-1].name] if control is None else control:
        function.control_ret[must_run] = must_run
        function.signature.control_output.append(must_run)
