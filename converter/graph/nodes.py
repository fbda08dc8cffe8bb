"""Nodes: how their attributes are made, how they are built and named, found and rewired."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from typing import TypeAlias

from numpy.typing import ArrayLike

from converter.graph import tensors
from converter.graph.model import Model, Scope
from converter.graph.protos import AttrValue, DataType, NameAttrList, NodeDef, TensorShapeProto
from converter.graph.refs import canonical_ref, input_ref

PlainAttr: TypeAlias = bool | int | float | str | bytes | AttrValue
"""What `plain_attr` makes an AttrValue of."""


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


def nodes_where(model: Model, wanted: Callable[[NodeDef], bool]) -> list[tuple[Scope, NodeDef]]:
    """Every node of the model that `wanted` picks, with its scope."""
    return [(scope, node) for scope in model.scopes() for node in scope.nodes if wanted(node)]


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
