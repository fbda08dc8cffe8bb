"""The few primitives that every pass shares: build nodes, follow and rename calls, rewire, clone, OUTLINE."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import TypeAlias

from numpy.typing import ArrayLike

from converter.graph import tensors
from converter.graph.model import Model, Scope
from converter.graph.protos import AttrValue, DataType, FunctionDef, NameAttrList, NodeDef, TensorShapeProto

# TensorFlow's serving metrics take functions with these in their names for another converter's.
_RESERVED_NAME_PARTS = {
    "tpu_func_0": "tpu_fn_0",
    "_with_batch": "_batched",
    "_optim": "_opt_im",
    "tpu_fn_icv2_": "tpu_fn_",
}
_TRACED_NAME = re.compile(r"^(__inference_.*?)_(\d+)$")

PlainAttr: TypeAlias = bool | int | float | str | bytes | AttrValue
"""What `plain_attr` makes an AttrValue of."""

# --- building nodes ---------------------------------------------------------------------------------------------


def type_attr(dtype: DataType) -> AttrValue:
    return AttrValue(type=dtype)


def type_list_attr(dtypes: Iterable[DataType]) -> AttrValue:
    return AttrValue(list=AttrValue.ListValue(type=list(dtypes)))


def int_list_attr(values: Iterable[int]) -> AttrValue:
    return AttrValue(list=AttrValue.ListValue(i=list(values)))


def shape_list_attr(shapes: Iterable[TensorShapeProto]) -> AttrValue:
    return AttrValue(list=AttrValue.ListValue(shape=list(shapes)))


def func_attr(name: str) -> AttrValue:
    return AttrValue(func=NameAttrList(name=name))


def plain_attr(value: PlainAttr) -> AttrValue:
    """An AttrValue of a Python bool, int, float, str or bytes; an AttrValue is returned as it is."""
    if isinstance(value, bool):
        return AttrValue(b=value)
    if isinstance(value, int):
        return AttrValue(i=value)
    if isinstance(value, float):
        return AttrValue(f=value)
    if isinstance(value, str):
        return AttrValue(s=value.encode())
    if isinstance(value, bytes):
        return AttrValue(s=value)
    return value


def make_node(name: str, op: str, inputs: Iterable[str] = (), /, **attrs: PlainAttr) -> NodeDef:
    """A NodeDef; attribute values as for `plain_attr`."""
    node = NodeDef(name=name, op=op, input=list(inputs))
    for key, value in attrs.items():
        node.attr[key].CopyFrom(plain_attr(value))
    return node


def const_node(name: str, value: ArrayLike, **attrs: PlainAttr) -> NodeDef:
    """A Const of a numpy scalar or array, or of anything `tf.make_tensor_proto` takes."""
    tensor = tensors.to_proto(value)
    return make_node(name, "Const", dtype=type_attr(tensor.dtype), value=AttrValue(tensor=tensor), **attrs)


def add_cast(
    scope: Scope, name: str, ref: str, source: DataType, target: DataType, device: str = "", **attrs: PlainAttr
) -> str:
    """Adds a Cast of the tensor `ref` to a scope, after all its nodes; returns how the scope spells the result.

    Args:
      name: not taken in the scope.
      ref: in any spelling.
      source, target: types of the tensor and of the result.
      attrs: more attributes of the Cast.
    """
    cast = make_node(name, "Cast", [input_ref(ref, scope)], SrcT=type_attr(source), DstT=type_attr(target), **attrs)
    cast.device = device
    scope.nodes.add().CopyFrom(cast)
    return scope.ref(name, "y", 0, 0)


class UniqueNames:
    """Names not yet taken in one scope, where a function's arguments count as taken.

    `names("x")` gives x, x_1, x_2, ... in order, so the same edits give the same names.
    """

    def __init__(self, scope: Scope) -> None:
        self._taken = {n.name for n in scope.nodes}
        if scope.function is not None:
            self._taken.update(a.name for a in scope.function.signature.input_arg)
        self._next: dict[str, int] = {}

    def __call__(self, stem: str) -> str:
        name = stem
        number = self._next.get(stem, 0)
        while name in self._taken:
            number += 1
            name = f"{stem}_{number}"
        self._next[stem] = number
        self._taken.add(name)
        return name


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


# --- inputs and references --------------------------------------------------------------------------------------


def is_control(ref: str) -> bool:
    return ref.startswith("^")


def data_inputs(node: NodeDef) -> list[str]:
    return [i for i in node.input if not is_control(i)]


def producer_of(ref: str) -> str:
    """The node, or function argument, that a reference names: 'a:y:0', 'a:1', 'a' and '^a' all give 'a'."""
    return ref.lstrip("^").split(":", 1)[0]


def before_identities(ref: str, nodes: Mapping[str, NodeDef]) -> str:
    """The tensor that chains of Identity copy to `ref`."""
    producer = nodes.get(producer_of(ref))
    while producer is not None and producer.op == "Identity":
        ref = data_inputs(producer)[0]
        producer = nodes.get(producer_of(ref))
    return ref


def canonical_ref(ref: str, scope: Scope) -> str:
    """One spelling for one tensor; in the main graph 'a' and 'a:0' are the same."""
    return f"{ref}:0" if scope.function is None and ":" not in ref and not is_control(ref) else ref


def input_ref(ref: str, scope: Scope) -> str:
    """How a node takes the tensor: in the main graph 'a', not 'a:0'."""
    return ref.removesuffix(":0") if scope.function is None else ref


def rewire(scope: Scope, replacements: Mapping[str, str], except_nodes: Collection[str] = ()) -> int:
    """Every use of a tensor that is a key of `replacements` (canonical spelling) becomes its value; returns how many.

    Nodes named in `except_nodes` keep their inputs. Uses are inputs of nodes and, in a function, its results.
    """
    skip = set(except_nodes)
    changed = 0
    for node in scope.nodes:
        if node.name in skip:
            continue
        for i, ref in enumerate(node.input):
            new = replacements.get(canonical_ref(ref, scope))
            if new is not None:
                node.input[i] = new
                changed += 1
    if scope.function is not None:
        # A copy: while a map of a proto is iterated, setting a key may make the iteration miss another.
        for result, ref in list(scope.function.ret.items()):
            if ref in replacements:
                scope.function.ret[result] = replacements[ref]
                changed += 1
    return changed


def in_order(scope: Scope) -> tuple[list[NodeDef], list[NodeDef]]:
    """The nodes of a scope, each behind those it takes; and apart, rings (loops of TensorFlow 1) and what follows."""
    nodes = {node.name: node for node in scope.nodes}
    users: dict[str, list[str]] = {}
    missing: dict[str, int] = {}
    for node in scope.nodes:
        producers = {p for ref in data_inputs(node) if (p := producer_of(ref)) in nodes}
        missing[node.name] = len(producers)
        for producer in producers:
            users.setdefault(producer, []).append(node.name)
    ready = [name for name, count in missing.items() if count == 0]
    for name in ready:
        for user in users.get(name, ()):
            missing[user] -= 1
            if missing[user] == 0:
                ready.append(user)
    return [nodes[name] for name in ready], [nodes[name] for name, count in missing.items() if count > 0]


# --- functions --------------------------------------------------------------------------------------------------


def result_shapes(function: FunctionDef) -> list[TensorShapeProto]:
    """The TensorShapeProto of each result as the exporter recorded it (`_output_shapes`); else of unknown rank."""
    nodes = {n.name: n for n in function.node_def}
    arguments = {a.name: i for i, a in enumerate(function.signature.input_arg)}
    shapes = []
    for result in function.signature.output_arg:
        ref = function.ret[result.name]
        producer, _, position = ref.partition(":")
        if producer in arguments:
            attrs = function.arg_attr[arguments[producer]].attr if arguments[producer] in function.arg_attr else {}
            index = 0
        else:
            attrs = nodes[producer].attr if producer in nodes else {}
            index = int(position.rpartition(":")[2] or 0)
        recorded = attrs["_output_shapes"].list.shape if "_output_shapes" in attrs else ()
        # An op with several output args counts from 0 in each, so only single-output records are unambiguous there.
        unambiguous = len(recorded) == 1 or producer in arguments or _one_output_arg(nodes.get(producer))
        if unambiguous and index < len(recorded):
            shapes.append(recorded[index])
        else:
            shapes.append(unknown_shape())
    return shapes


def _one_output_arg(node: NodeDef | None) -> bool:
    return node is not None and ("Tout" in node.attr or "output_types" in node.attr)


def unknown_shape() -> TensorShapeProto:
    return TensorShapeProto(unknown_rank=True)


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
    _move_captured_tensors(model, outer, inner)
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


def _move_captured_tensors(model: Model, outer: FunctionDef, inner: FunctionDef) -> None:
    arguments = {a.name for a in outer.signature.input_arg}
    for saved in model.object_graph.nodes:
        if (
            saved.WhichOneof("kind") == "captured_tensor"
            and saved.captured_tensor.concrete_function == outer.signature.name
            and producer_of(saved.captured_tensor.name) not in arguments
        ):
            saved.captured_tensor.concrete_function = inner.signature.name


def nodes_where(model: Model, wanted: Callable[[NodeDef], bool]) -> list[tuple[Scope, NodeDef]]:
    """Every node of the model that `wanted` picks, with its scope."""
    return [(scope, node) for scope in model.scopes() for node in scope.nodes if wanted(node)]
