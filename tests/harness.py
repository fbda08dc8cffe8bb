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

import ast
import difflib
import json
import re
import zlib
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tensorflow.core.framework import attr_value_pb2, function_pb2, node_def_pb2, tensor_shape_pb2
from tensorflow.core.protobuf import saved_model_pb2, saved_object_graph_pb2
from tensorflow.dtypes import as_dtype
from tensorflow.python.framework import tensor_util

from converter.graph.invariants import verify_structure
from converter.graph.model import Model
from converter.graph.protos import FunctionDef, NodeDef
from converter.graph.tensors import dtype_name
from converter.passes.pass_result import AnyPass, Pass, PassResult, Plan

HIDDEN_ATTRS = ("_output_shapes", "config_proto")
_MAX_SHOWN_ELEMENTS = 16
_JIT_COMPILE_ON = saved_object_graph_pb2.FunctionSpec.JitCompile.ON

Expected = Sequence[str | re.Pattern[str]]


# --- tests of passes --------------------------------------------------------------------------------------------


def assert_pass(
    each: AnyPass,
    before: str,
    after: str,
    *,
    changes: Expected | None = None,
    skips: Expected = (),
    warnings: Expected = (),
    recasts: Collection[str] = (),
    show: Collection[str] = (),
) -> PassResult:
    """Fails unless the pass turns `before` into `after` and tells the truth of it.

    Checks besides: the models before and after are consistent; planning changes nothing; `changes` is empty exactly
    when nothing changed; a second run plans nothing and changes nothing.

    Args:
      changes, skips: what the pass reports, each as "where: what", in order; a compiled pattern is searched for.
        `changes` None is no check, beyond those above.
      warnings: the same with the message alone.
      recasts: `model.recasts` afterwards.
      show: attributes that are compared although they are among HIDDEN_ATTRS.
    """
    model = parse_model(before)
    verify_structure(model)
    state = _state(model)
    assert_planning_changes_nothing(each, model)
    result = each.apply(model)
    _assert_same_text(render(model, show, sort=True), render(parse_model(after), show, sort=True))
    verify_structure(model)
    _assert_truthful(result, changed=_state(model) != state)
    if changes is not None:
        _assert_said("changes", [f"{c.where}: {c.what}" for c in result.changes], changes)
    _assert_said("skips", [f"{s.where}: {s.reason}" for s in result.skips], skips)
    _assert_said("warnings", result.warnings, warnings)
    assert model.recasts == set(recasts), f"recasts: expected {sorted(recasts)}, found {sorted(model.recasts)}"
    assert_second_run_changes_nothing(each, model)
    return result


def assert_pass_raises(each: AnyPass, before: str, error: type[Exception], message_regex: str) -> None:
    """Fails unless the pass refuses `before` with exactly this type of error and leaves the model as it was."""
    model = parse_model(before)
    verify_structure(model)
    state = _state(model)
    with pytest.raises(error, match=message_regex) as caught:
        each.apply(model)
    assert type(caught.value) is error, f"expected {error.__name__}, found {type(caught.value).__name__}"
    assert _state(model) == state, "the pass changed the model before it failed"


def assert_second_run_changes_nothing(each: AnyPass, model: Model) -> None:
    """Fails unless the pass leaves `model`, to which it has been applied, as it is."""
    state = _state(model)
    if isinstance(each, Pass):
        plan = assert_planning_changes_nothing(each, model)
        assert plan.is_empty, f"a second run plans {plan}"
    result = each.apply(model)
    assert not result.changes, f"a second run reports {result.changes}"
    assert _state(model) == state, "a second run changes the model"


def assert_planning_changes_nothing(each: AnyPass, model: Model) -> Plan | None:
    """Fails unless `plan` is a frozen dataclass, the same twice, and leaves `model` as it was byte by byte."""
    if not isinstance(each, Pass):
        return None
    state = _state(model)
    plan = each.plan(model)
    assert _state(model) == state, "planning changes the model"
    assert type(plan).__dataclass_params__.frozen, f"{type(plan).__name__} is not a frozen dataclass"
    assert each.plan(model) == plan, "a second plan of the same model is another"
    return plan


def _state(model: Model) -> tuple[bytes, tuple[str, ...]]:
    return model.saved_model.SerializeToString(deterministic=True), tuple(sorted(model.recasts))


def _assert_truthful(result: PassResult, changed: bool) -> None:
    assert bool(result.changes) == changed, (
        f"the pass {'changed' if changed else 'did not change'} the model and reports {result.changes or 'no changes'}"
    )
    json.dumps(result.details.to_json())
    assert all(isinstance(line, str) for line in result.details.lines())


def _assert_said(what: str, found: Sequence[str], expected: Expected) -> None:
    shown = "".join(f"\n  {text!r}" for text in found) or " none"
    assert len(found) == len(expected), f"{len(expected)} {what} expected, found {len(found)}:{shown}"
    for text, pattern in zip(found, expected, strict=True):
        fits = text == pattern if isinstance(pattern, str) else bool(pattern.search(text))
        assert fits, f"{what}: expected {pattern!r}, found:{shown}"


def _assert_same_text(found: str, expected: str) -> None:
    if found != expected:
        lines = difflib.unified_diff(expected.splitlines(), found.splitlines(), "expected", "found", lineterm="")
        diff = "\n".join(lines)
        pytest.fail(f"the model differs from the expected one\n{diff}\n--- found, whole\n{found}", pytrace=False)


# --- Model -> text ----------------------------------------------------------------------------------------------


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


# --- text -> Model ----------------------------------------------------------------------------------------------


def parse_model(text: str, path: Path | str = "model") -> Model:
    """The model that `text` describes. ValueError, with the line, if it cannot be read."""
    return Model(_Parser(text).saved_model(), Path(path))


def write_model_text(text: str, directory: Path) -> Path:
    """Writes the model as a SavedModel without variables, which converts but does not load; returns `directory`."""
    model = parse_model(text)
    if not model.object_graph.nodes:
        model.object_graph.nodes.add().user_object.identifier = "_generic_user_object"
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "saved_model.pb").write_bytes(model.saved_model.SerializeToString(deterministic=True))
    return directory


_NAME = r"[\w./\\]+(?:-[\w./\\]+)*"
_FUNCTION_NAME = r"[\w./-]*(?:<\w+>[\w./-]*)*(?<!-)"
_REF = rf"\^?{_NAME}(?::\w+)*"
_NUMBER = r"[+-]?(?:\d+\.?\d*(?:[eE][+-]?\d+)?|inf|nan)(?!\w)"
_STRING = r'"(?:[^"\\\n]|\\.)*"'
_BLANK = re.compile(r"(?:\s|;|#[^\n]*)*")


class _Parser:
    """Reads without a separate lexer, since what a colon means depends on where it stands."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0
        self._saved = saved_model_pb2.SavedModel(saved_model_schema_version=1)
        self._meta = self._saved.meta_graphs.add()
        self._meta.meta_info_def.tags.append("serve")
        self._objects: dict[str, int] = {}

    def saved_model(self) -> Any:
        while self._skip_blank() < len(self._text):
            if self._take("main"):
                self._nodes(self._meta.graph_def.node)
            elif self._take("alias"):
                self._alias()
            elif self._take("signature"):
                self._signature()
            elif self._take("object"):
                self._object()
            else:
                self._function()
        return self._saved

    # Reading characters.

    def _skip_blank(self) -> int:
        match = _BLANK.match(self._text, self._at)
        self._at = match.end() if match else self._at
        return self._at

    def _match(self, pattern: str) -> str | None:
        self._skip_blank()
        match = re.compile(pattern).match(self._text, self._at)
        if match is None:
            return None
        self._at = match.end()
        return match[0]

    def _take(self, literal: str) -> bool:
        return self._match(re.escape(literal) + (r"\b" if literal[-1].isalnum() else "")) is not None

    def _expect(self, pattern: str, what: str) -> str:
        found = self._match(pattern)
        if found is None:
            line = self._text.count("\n", 0, self._at) + 1
            rest = self._text[self._at : self._at + 40].split("\n")[0]
            raise ValueError(f"line {line}: expected {what}, found {rest!r}")
        return found

    def _separated(self, close: str) -> Iterator[None]:
        """Yields once for each element of a comma-separated list, whose end it consumes."""
        while not self._take(close):
            yield
            if not self._take(","):
                self._expect(re.escape(close), f"',' or '{close}'")
                return

    def _function_name(self) -> str:
        self._expect("@", "@function")
        return self._expect(_FUNCTION_NAME, "a function's name")

    def _string(self) -> bytes:
        quoted = self._expect(_STRING, "a string in double quotes")
        value = ast.literal_eval("b" + quoted)
        assert isinstance(value, bytes)
        return value

    # Header.

    def _alias(self) -> None:
        alias = self._string().decode()
        self._expect("=", "'='")
        for _ in self._list_without_end():
            self._meta.meta_info_def.function_aliases[self._function_name()] = alias

    def _list_without_end(self) -> Iterator[None]:
        yield
        while self._take(","):
            yield

    def _signature(self) -> None:
        signature = self._meta.signature_def[self._string().decode()]
        signature.method_name = "tensorflow/serving/predict"
        if not self._take("->"):
            self._tensor_infos(signature.inputs)
            self._expect("->", "'->'")
        self._tensor_infos(signature.outputs)

    def _tensor_infos(self, infos: Any) -> None:
        for _ in self._list_without_end():
            info = infos[self._expect(r"\w+", "a tensor's key")]
            self._expect("=", "'='")
            info.name = self._expect(_REF, "a tensor")
            # A dtype stands on the same line; anything else starts the next statement.
            if re.compile(r"[ \t]+\w+<").match(self._text, self._at):
                info.dtype = self._dtype()
                info.tensor_shape.CopyFrom(self._shape())

    def _object(self) -> None:
        number = self._add_object(self._expect(r"[\w.]+", "an object's path"))
        self._expect("=", "'='")
        graph, saved = self._meta.object_graph_def, self._meta.object_graph_def.nodes[number]
        kind = self._expect("function|bare|variable|constant|captured|resource", "a kind of object")
        if kind == "function":
            for _ in self._list_without_end():
                name = self._function_name()
                saved.function.concrete_functions.append(name)
                concrete = graph.concrete_functions[name]
                if self._take("("):
                    concrete.ClearField("bound_inputs")
                    for _ in self._separated(")"):
                        concrete.bound_inputs.append(self._objects[self._expect(r"[\w.]+", "an object's path")])
            if self._take("{"):
                self._expect(r"jit_compile\s*\}", "'jit_compile}'")
                saved.function.function_spec.jit_compile = _JIT_COMPILE_ON
        elif kind == "bare":
            saved.bare_concrete_function.concrete_function_name = self._function_name()
        elif kind == "variable":
            saved.variable.dtype = self._dtype()
            saved.variable.shape.CopyFrom(self._shape())
            saved.variable.name = next(path for path, n in self._objects.items() if n == number)
        elif kind == "constant":
            saved.constant.operation = self._string().decode()
        elif kind == "captured":
            saved.captured_tensor.name = self._expect(_REF, "a tensor")
            self._expect("in", "'in'")
            saved.captured_tensor.concrete_function = self._function_name()
        else:
            saved.resource.SetInParent()

    def _add_object(self, path: str) -> int:
        graph = self._meta.object_graph_def
        if not graph.nodes:
            graph.nodes.add().user_object.identifier = "_generic_user_object"
        parent, _, name = path.rpartition(".")
        parent_id = 0 if not parent else self._objects.get(parent)
        if parent_id is None:
            parent_id = self._add_object(parent)
            graph.nodes[parent_id].user_object.identifier = "_generic_user_object"
        self._objects[path] = len(graph.nodes)
        graph.nodes.add()
        graph.nodes[parent_id].children.add(node_id=self._objects[path], local_name=name)
        return self._objects[path]

    # Graphs.

    def _function(self) -> None:
        function = function_pb2.FunctionDef()
        function.signature.name = self._function_name()
        self._expect(r"\(", "'('")
        for _ in self._separated(")"):
            self._argument(function)
        self._expect("->", "'->'")
        self._expect(r"\(", "'('")
        for _ in self._separated(")"):
            name = self._key()
            function.signature.output_arg.add(name=name, type=self._dtype())
        if self._take("["):
            for _ in self._separated("]"):
                if self._take("stateful"):
                    function.signature.is_stateful = True
                else:
                    key = self._key()
                    function.attr[key].CopyFrom(self._value())
        self._nodes(function.node_def, function)
        self._meta.graph_def.library.function.add().CopyFrom(function)

    def _argument(self, function: FunctionDef) -> None:
        name = self._key()
        argument = function.signature.input_arg.add(name=name, type=self._dtype())
        if self._take("("):
            for _ in self._separated(")"):
                handle = argument.handle_data.add(dtype=self._dtype())
                handle.shape.CopyFrom(self._shape())
        if self._take("{"):
            self._attrs(function.arg_attr[len(function.signature.input_arg) - 1].attr)

    def _nodes(self, nodes: Any, function: FunctionDef | None = None) -> None:
        self._expect(r"\{", "'{'")
        while not self._take("}"):
            if function is not None and self._take("return"):
                self._return(function)
                self._expect(r"\}", "'}'")
                return
            nodes.add().CopyFrom(self._node())

    def _node(self) -> NodeDef:
        node = node_def_pb2.NodeDef(name=self._expect(_NAME, "a node"))
        self._expect("=", "'='")
        node.op = self._expect(_FUNCTION_NAME, "an op")
        self._expect(r"\(", "'('")
        for _ in self._separated(")"):
            node.input.append(self._expect(_REF, "an input"))
        if self._take("{"):
            self._attrs(node.attr)
        if self._match(r'on(?=\s*")'):
            node.device = self._string().decode()
        return node

    def _return(self, function: FunctionDef) -> None:
        results = [r.name for r in function.signature.output_arg]
        refs: list[str] = []
        # An empty return stands alone on its line, so the next character is the closing brace.
        self._skip_blank()
        for _ in self._list_without_end() if self._text[self._at] != "}" else ():
            ref = self._expect(_REF, "a result")
            if not ref.startswith("^"):
                refs.append(ref)
                continue
            output = ref[1:]
            function.control_ret[output] = self._expect(_NAME, "a node") if self._take("=") else output
            function.signature.control_output.append(output)
        if len(refs) != len(results):
            raise ValueError(f"@{function.signature.name} returns {len(refs)} tensors, its head says {len(results)}")
        for result, ref in zip(results, refs, strict=True):
            function.ret[result] = ref

    # Attributes.

    def _key(self) -> str:
        key = self._expect(r"[\w./-]+", "a name")
        self._expect(":", "':'")
        return key

    def _attrs(self, attrs: Any) -> None:
        for _ in self._separated("}"):
            key = self._key()
            attrs[key].CopyFrom(self._value())

    def _value(self) -> Any:
        if not self._take("["):
            kind, value = self._scalar()
            return attr_value_pb2.AttrValue(**{kind: value})
        elements = [self._scalar() for _ in self._separated("]")]
        values = attr_value_pb2.AttrValue.ListValue()
        if elements:
            kind = "f" if any(k == "f" for k, _ in elements) else elements[0][0]
            getattr(values, kind).extend([value for _, value in elements])
        return attr_value_pb2.AttrValue(list=values)

    def _scalar(self) -> tuple[str, Any]:
        self._skip_blank()
        first = self._text[self._at : self._at + 1]
        if first == '"':
            return "s", self._string()
        if first == "<":
            return "shape", self._shape()
        if first == "@":
            function = attr_value_pb2.NameAttrList(name=self._function_name())
            if self._take("{"):
                self._attrs(function.attr)
            return "func", function
        number = self._match(_NUMBER)
        if number is not None:
            return ("i", int(number)) if re.fullmatch(r"[+-]?\d+", number) else ("f", float(number))
        word = self._match("true|false")
        if word is not None:
            return "b", word == "true"
        dtype = self._dtype()
        if self._text[self._at : self._at + 1] in ("(", "<"):
            return "tensor", self._tensor(dtype)
        return "type", dtype

    def _dtype(self) -> int:
        start = self._at
        name = self._expect(r"[a-z]\w+", "a dtype")
        try:
            return int(as_dtype(name).as_datatype_enum)
        except TypeError:
            self._at = start
            self._expect("(?!)", f"a dtype (there is no {name!r})")
            raise

    def _shape(self) -> Any:
        self._expect("<", "a <shape>")
        if self._take("*"):
            self._expect(">", "'>'")
            return tensor_shape_pb2.TensorShapeProto(unknown_rank=True)
        shape = tensor_shape_pb2.TensorShapeProto()
        for _ in self._separated(">"):
            size = self._expect(r"\d+|\?", "a size or ?")
            shape.dim.add(size=-1 if size == "?" else int(size))
        return shape

    def _tensor(self, dtype: int) -> Any:
        numpy_dtype = as_dtype(dtype).as_numpy_dtype
        if not self._take("("):
            shape = [d.size for d in self._shape().dim]
            if self._text.startswith("#", self._at):
                raise ValueError("a tensor with a checksum instead of values cannot be read back")
            return tensor_util.make_tensor_proto(np.zeros(shape, numpy_dtype), dtype)
        value = self._elements()
        self._expect(r"\)", "')'")
        return tensor_util.make_tensor_proto(np.array(value, numpy_dtype), dtype)

    def _elements(self) -> Any:
        if self._take("["):
            return [self._elements() for _ in self._separated("]")]
        return self._scalar()[1]
