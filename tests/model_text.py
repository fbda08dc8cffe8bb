"""Graphs as short text, in and out, so that the test of a pass documents its rewrite.

    alias "tpu" = @F                                            # function alias; several functions: @F, @G
    signature "serving_default" x=x:0 -> y=call:0               # float32<?,10> after a tensor gives dtype and shape
    object v = variable float32<10,4>                           # object graph; ids count from 1 in order of the text
    object tpu_func = function @F(v) {jit_compile}              # (v): the bound inputs of the concrete function
    object signatures.serving_default = bare @F                 # also: constant "c", captured m:0 in @F, resource
    main {
      x = Placeholder() {dtype: float32, shape: <?,10>}
      call = PartitionedCall(x, ^init) {f: @F, Tin: [float32], Tout: [float32]} on "/device:CPU:0"
    }
    @F(x: float32 {_user_specified_name: "x"}, v: resource(float32<10,4>)) -> (y: float32) [stateful, _noinline: true] {
      r = ReadVariableOp(v) {dtype: float32}; c = Const() {dtype: float32, value: float32([1.0, 2.0])}
      m = Mul(x, r:value:0) {T: float32}
      return m:z:0, ^m                                          # ^m: a node that must run
    }

Attribute values: dtypes, @functions, true, 1, 1.0, "bytes", <shapes> (<> a scalar, <*> of unknown rank), tensors
(float32(2), float32([[1, 2]]); float32<3,4> is all zero; large ones are printed with a checksum), and [lists] of the
first six. Statements end at a line's end or a semicolon; a # starts a comment.
"""

from __future__ import annotations

import zlib
from collections.abc import Collection, Iterator
from typing import Any

import numpy as np
from tensorflow.core.protobuf import saved_object_graph_pb2
from tensorflow.python.framework import tensor_util

from converter.graph.model import Model
from converter.graph.protos import FunctionDef, NodeDef
from converter.graph.tensors import dtype_name

HIDDEN_ATTRS = ("_output_shapes", "config_proto")
_MAX_SHOWN_ELEMENTS = 16
_JIT_COMPILE_ON = saved_object_graph_pb2.FunctionSpec.JitCompile.ON


def render(model: Model, show: Collection[str] = (), *, sort: bool = False) -> str:
    """The model as text that `parse_model` reads. `sort` puts functions in the order of their names."""
    hidden = set(HIDDEN_ATTRS) - set(show)
    parts = [*_header_lines(model)]
    if model.graph_def.node:
        parts += ["main {", *(f"  {_node_text(n, hidden)}" for n in model.graph_def.node), "}"]
    functions = list(model.graph_def.library.function)
    for function in sorted(functions, key=lambda f: str(f.signature.name)) if sort else functions:
        parts += render_function(function, show).splitlines()
    return "\n".join(parts) + "\n"


def render_function(function: FunctionDef, show: Collection[str] = ()) -> str:
    """One function as text."""
    hidden = set(HIDDEN_ATTRS) - set(show)
    signature = function.signature
    arguments = ", ".join(_argument_text(function, i, hidden) for i in range(len(signature.input_arg)))
    results = ", ".join(f"{r.name}: {dtype_name(r.type)}" for r in signature.output_arg)
    flags = ["stateful"] if signature.is_stateful else []
    flags += [f"{key}: {_value_text(function.attr[key])}" for key in sorted(set(function.attr) - hidden)]
    head = f"@{signature.name}({arguments}) -> ({results}) " + (f"[{', '.join(flags)}] " if flags else "") + "{"
    refs = [function.ret.get(r.name, "?") for r in signature.output_arg]
    for output in signature.control_output:
        node = function.control_ret.get(output, "?")
        refs.append(f"^{output}" if node == output else f"^{output}={node}")
    body = [f"  {_node_text(n, hidden)}" for n in function.node_def]
    return "\n".join([head, *body, f"  return {', '.join(refs)}".rstrip(), "}"])


def _header_lines(model: Model) -> Iterator[str]:
    for alias, functions in sorted(model.aliases.items()):
        yield f'alias "{alias}" = {", ".join(f"@{f}" for f in functions)}'
    for key, signature in sorted(model.meta_graph.signature_def.items()):
        inputs, outputs = (
            ", ".join(f"{k}={_tensor_info_text(v)}" for k, v in sorted(infos.items()))
            for infos in (signature.inputs, signature.outputs)
        )
        yield f'signature "{key}" {inputs} -> {outputs}'.replace("  ", " ")
    paths = _object_paths(model)
    for number, path in sorted(paths.items()):
        text = _object_text(model, number, paths)
        if text:
            yield f"object {path} = {text}"


def _object_paths(model: Model) -> dict[int, str]:
    paths = {0: ""}
    queue = [0]
    for number in queue if model.object_graph.nodes else ():
        for child in model.object_graph.nodes[number].children:
            if child.node_id not in paths:
                paths[child.node_id] = f"{paths[number]}.{child.local_name}".lstrip(".")
                queue.append(child.node_id)
    return {number: path for number, path in paths.items() if path}


def _object_text(model: Model, number: int, paths: dict[int, str]) -> str:
    saved = model.object_graph.nodes[number]
    kind = saved.WhichOneof("kind")
    if kind == "function":
        names = []
        for name in saved.function.concrete_functions:
            bound = model.object_graph.concrete_functions
            inputs = [paths[i] for i in bound[name].bound_inputs] if name in bound else []
            names.append(f"@{name}" + (f"({', '.join(inputs)})" if inputs else ""))
        jit = saved.function.function_spec.jit_compile == _JIT_COMPILE_ON
        return f"function {', '.join(names)}" + (" {jit_compile}" if jit else "")
    if kind == "bare_concrete_function":
        return f"bare @{saved.bare_concrete_function.concrete_function_name}"
    if kind == "variable":
        return f"variable {dtype_name(saved.variable.dtype)}{_shape_text(saved.variable.shape)}"
    if kind == "constant":
        return f'constant "{saved.constant.operation}"'
    if kind == "captured_tensor":
        return f"captured {saved.captured_tensor.name} in @{saved.captured_tensor.concrete_function}"
    return "resource" if kind == "resource" else ""


def _tensor_info_text(info: Any) -> str:
    if not info.dtype:
        return str(info.name)
    shape = _shape_text(info.tensor_shape) if info.HasField("tensor_shape") else ""
    return f"{info.name} {dtype_name(info.dtype)}{shape}"


def _argument_text(function: FunctionDef, index: int, hidden: set[str]) -> str:
    argument = function.signature.input_arg[index]
    text = f"{argument.name}: {dtype_name(argument.type)}"
    if argument.handle_data:
        text += f"({', '.join(f'{dtype_name(d.dtype)}{_shape_text(d.shape)}' for d in argument.handle_data)})"
    attrs = function.arg_attr[index].attr if index in function.arg_attr else {}
    return text + _attrs_text(attrs, hidden)


def _node_text(node: NodeDef, hidden: set[str]) -> str:
    device = f' on "{node.device}"' if node.device else ""
    return f"{node.name} = {node.op}({', '.join(node.input)}){_attrs_text(node.attr, hidden)}{device}"


def _attrs_text(attrs: Any, hidden: Collection[str] = ()) -> str:
    shown = [f"{key}: {_value_text(attrs[key])}" for key in sorted(set(attrs) - set(hidden))]
    return f" {{{', '.join(shown)}}}" if shown else ""


def _value_text(value: Any) -> str:
    kind = value.WhichOneof("value")
    if kind == "list":
        field = next(iter(value.list.ListFields()), None)
        return f"[{', '.join(_scalar_text(field[0].name, v) for v in field[1])}]" if field else "[]"
    return _scalar_text(kind, getattr(value, kind)) if kind else "none"


def _scalar_text(kind: str, value: Any) -> str:
    if kind == "b":
        return str(value).lower()
    if kind == "f":
        return str(np.float32(value))
    if kind == "s":
        return _bytes_text(value)
    if kind == "type":
        return dtype_name(value)
    if kind == "shape":
        return _shape_text(value)
    if kind == "tensor":
        return _tensor_text(value)
    if kind == "func":
        return f"@{value.name}{_attrs_text(value.attr)}"
    return str(value)


def _bytes_text(value: bytes) -> str:
    def escaped(byte: int) -> str:
        if byte in b'"\\':
            return "\\" + chr(byte)
        return chr(byte) if 32 <= byte < 127 else f"\\x{byte:02x}"

    return f'"{"".join(escaped(b) for b in value)}"'


def _shape_text(shape: Any) -> str:
    if shape.unknown_rank:
        return "<*>"
    return f"<{','.join('?' if d.size < 0 else str(d.size) for d in shape.dim)}>"


def _tensor_text(tensor: Any) -> str:
    dtype, array = dtype_name(tensor.dtype), tensor_util.MakeNdarray(tensor)
    shape = f"<{','.join(map(str, array.shape))}>"
    if array.size == 0 or (array.size > _MAX_SHOWN_ELEMENTS and array.dtype != object and not array.any()):
        return dtype + shape
    if array.size > _MAX_SHOWN_ELEMENTS:
        return f"{dtype}{shape}#{zlib.crc32(repr(array.tolist()).encode()):08x}"
    return f"{dtype}({_elements_text(array.tolist(), array.dtype)})"


def _elements_text(value: Any, dtype: np.dtype[Any]) -> str:
    if isinstance(value, list):
        return f"[{', '.join(_elements_text(v, dtype) for v in value)}]"
    if isinstance(value, bytes):
        return _bytes_text(value)
    if isinstance(value, bool):
        return str(value).lower()
    return str(np.float32(value)) if dtype == np.float32 else str(value)
