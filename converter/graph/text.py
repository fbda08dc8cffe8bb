r"""A model as short text, for people: what --dump_dir writes, and what the tests of passes read and compare.

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
(float32(2), float32([[1, 2]]); float32<3,4> is all zero), and [lists] of the first six. Statements end at a line's end
or a semicolon; a # starts a comment. What follows cannot be read back: large tensors and bytes stand with their size
and a checksum (float32<1000,10>#0c2f8e6b, bytes<4096>#9a3b01ff), a bound input without a path as node7, its id.

    model:      {alias | signature | object | "main" body | function}
    function:   "@" name "(" [argument {"," argument}] ")" "->" "(" [name ":" dtype {"," ...}] ")" ["[" flags "]"] body
    argument:   name ":" dtype ["(" dtype shape {"," ...} ")"] [attrs]          in parentheses what a resource handles
    body:       "{" {node} ["return" [ref {"," ref}]] "}"
    node:       name "=" op "(" [ref {"," ref}] ")" [attrs] ["on" device]
    attrs:      "{" name ":" value {"," name ":" value} "}"
    ref:        as TensorFlow spells it: "x", "x:1" or "^x" in the main graph, "x:z:0" in functions
"""

from __future__ import annotations

import zlib
from collections.abc import Collection, Iterator, Mapping

import numpy as np

from converter.graph import tensors
from converter.graph.model import Model
from converter.graph.protos import (
    DATA_TYPES,
    DT_INVALID,
    DT_RESOURCE,
    DT_VARIANT,
    AttrValue,
    DataType,
    FunctionDef,
    FunctionSpec,
    NameAttrList,
    NodeDef,
    TensorInfo,
    TensorProto,
    TensorShapeProto,
)

HIDDEN_ATTRS = ("_output_shapes", "config_proto")
_MAX_SHOWN_ELEMENTS = 16
_MAX_SHOWN_BYTES = 256


def render(model: Model, show: Collection[str] = (), *, sort: bool = False) -> str:
    """The whole model; of HIDDEN_ATTRS only those in `show`. `sort` puts functions in the order of their names."""
    hidden = set(HIDDEN_ATTRS) - set(show)
    parts = [*_header_lines(model)]
    if model.graph_def.node:
        parts += ["main {", *(f"  {_node_text(n, hidden)}" for n in model.graph_def.node), "}"]
    functions = list(model.graph_def.library.function)
    for function in sorted(functions, key=lambda f: f.signature.name) if sort else functions:
        parts.append(render_function(function, show))
    return "\n".join(parts) + "\n"


def render_function(function: FunctionDef, show: Collection[str] = ()) -> str:
    """One function."""
    hidden = set(HIDDEN_ATTRS) - set(show)
    signature = function.signature
    arguments = ", ".join(_argument_text(function, i, hidden) for i in range(len(signature.input_arg)))
    results = ", ".join(f"{r.name}: {_dtype_text(r.type)}" for r in signature.output_arg)
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


def _object_text(model: Model, number: int, paths: Mapping[int, str]) -> str:
    saved = model.object_graph.nodes[number]
    kind = saved.WhichOneof("kind")
    if kind == "function":
        functions = ", ".join(_concrete_function_text(model, name, paths) for name in saved.function.concrete_functions)
        jit = saved.function.function_spec.jit_compile == FunctionSpec.JitCompile.ON
        return f"function {functions}" + (" {jit_compile}" if jit else "")
    if kind == "bare_concrete_function":
        return f"bare @{saved.bare_concrete_function.concrete_function_name}"
    if kind == "variable":
        return f"variable {_dtype_text(saved.variable.dtype)}{_shape_text(saved.variable.shape)}"
    if kind == "constant":
        return f'constant "{saved.constant.operation}"'
    if kind == "captured_tensor":
        return f"captured {saved.captured_tensor.name} in @{saved.captured_tensor.concrete_function}"
    return "resource" if kind == "resource" else ""


def _concrete_function_text(model: Model, name: str, paths: Mapping[int, str]) -> str:
    bound = model.object_graph.concrete_functions
    inputs = [paths.get(i, f"node{i}") for i in bound[name].bound_inputs] if name in bound else []
    return f"@{name}" + (f"({', '.join(inputs)})" if inputs else "")


def _tensor_info_text(info: TensorInfo) -> str:
    if not info.dtype:
        return info.name
    shape = _shape_text(info.tensor_shape) if info.HasField("tensor_shape") else ""
    return f"{info.name} {_dtype_text(info.dtype)}{shape}"


def _argument_text(function: FunctionDef, index: int, hidden: Collection[str]) -> str:
    argument = function.signature.input_arg[index]
    text = f"{argument.name}: {_dtype_text(argument.type)}"
    if argument.handle_data:
        text += f"({', '.join(f'{_dtype_text(d.dtype)}{_shape_text(d.shape)}' for d in argument.handle_data)})"
    attrs = function.arg_attr[index].attr if index in function.arg_attr else {}
    return text + _attrs_text(attrs, hidden)


def _node_text(node: NodeDef, hidden: Collection[str]) -> str:
    device = f' on "{node.device}"' if node.device else ""
    return f"{node.name} = {node.op}({', '.join(node.input)}){_attrs_text(node.attr, hidden)}{device}"


def _attrs_text(attrs: Mapping[str, AttrValue], hidden: Collection[str] = ()) -> str:
    shown = [f"{key}: {_value_text(attrs[key])}" for key in sorted(set(attrs) - set(hidden))]
    return f" {{{', '.join(shown)}}}" if shown else ""


def _value_text(value: AttrValue) -> str:
    match value.WhichOneof("value"):
        case "list":
            return f"[{', '.join(_list_texts(value.list))}]"
        case "s":
            return _bytes_text(value.s)
        case "i":
            return str(value.i)
        case "f":
            return str(np.float32(value.f))
        case "b":
            return str(value.b).lower()
        case "type":
            return _dtype_text(value.type)
        case "shape":
            return _shape_text(value.shape)
        case "tensor":
            return _tensor_text(value.tensor)
        case "func":
            return _func_text(value.func)
        case _:
            return value.placeholder or "none"


def _list_texts(values: AttrValue.ListValue) -> Iterator[str]:
    """Of its fields, one at most has elements."""
    yield from map(_bytes_text, values.s)
    yield from map(str, values.i)
    yield from (str(np.float32(f)) for f in values.f)
    yield from (str(b).lower() for b in values.b)
    yield from map(_dtype_text, values.type)
    yield from map(_shape_text, values.shape)
    yield from map(_tensor_text, values.tensor)
    yield from map(_func_text, values.func)


def _func_text(func: NameAttrList) -> str:
    return f"@{func.name}{_attrs_text(func.attr)}"


def _bytes_text(value: bytes) -> str:
    def escaped(byte: int) -> str:
        if byte in b'"\\':
            return "\\" + chr(byte)
        return chr(byte) if 32 <= byte < 127 else f"\\x{byte:02x}"

    if len(value) > _MAX_SHOWN_BYTES:
        return f"bytes<{len(value)}>{_checksum(value)}"
    return f'"{"".join(escaped(b) for b in value)}"'


def _checksum(value: bytes) -> str:
    return f"#{zlib.crc32(value):08x}"


def _dtype_text(dtype: DataType) -> str:
    """Also of an inconsistent model, which has to be looked at most of all."""
    return tensors.dtype_name(dtype) if dtype in DATA_TYPES - {DT_INVALID} else f"dtype{dtype}"


def _shape_text(shape: TensorShapeProto) -> str:
    if shape.unknown_rank:
        return "<*>"
    return f"<{','.join('?' if d.size < 0 else str(d.size) for d in shape.dim)}>"


def _tensor_text(tensor: TensorProto) -> str:
    dtype = _dtype_text(tensor.dtype)
    if tensor.dtype in (DT_INVALID, DT_RESOURCE, DT_VARIANT):
        return f"{dtype}{_shape_text(tensor.tensor_shape)}{_checksum(tensor.SerializeToString(deterministic=True))}"
    array = tensors.values(tensor)
    shape = f"<{','.join(map(str, array.shape))}>"
    if array.size <= _MAX_SHOWN_ELEMENTS:
        return f"{dtype}({_elements_text(array.tolist(), array.dtype)})" if array.size else dtype + shape
    if array.dtype != object and not array.any():
        return dtype + shape
    data = repr(array.tolist()).encode() if array.dtype == object else array.tobytes()
    return f"{dtype}{shape}{_checksum(data)}"


def _elements_text(value: object, dtype: np.dtype[np.generic]) -> str:
    if isinstance(value, list):
        return f"[{', '.join(_elements_text(v, dtype) for v in value)}]"
    if isinstance(value, bytes):
        return _bytes_text(value)
    if isinstance(value, bool):
        return str(value).lower()
    return str(np.float32(value)) if isinstance(value, float) and dtype == np.float32 else str(value)
