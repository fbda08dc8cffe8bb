"""Reads the text of converter/graph/text.py, which says how it is written."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from tensorflow.core.framework import attr_value_pb2, function_pb2, node_def_pb2, tensor_shape_pb2
from tensorflow.core.protobuf import saved_model_pb2, saved_object_graph_pb2
from tensorflow.dtypes import as_dtype
from tensorflow.python.framework import tensor_util

from converter.graph.model import Model
from converter.graph.protos import FunctionDef, NodeDef

_JIT_COMPILE_ON = saved_object_graph_pb2.FunctionSpec.JitCompile.ON


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
