"""Who names a tensor from outside of its scope: signatures, and the object graph for what gradient functions captured.

A function spells its tensors "node:output_arg:0". From outside they are spelled as in a graph, "node:1", the outputs of
a node counted through and arguments being nodes: the loaders look them up with `get_tensor_by_name`.
"""

from __future__ import annotations

from converter.errors import ConversionError
from converter.graph import edit, ops
from converter.graph.model import MAIN_GRAPH, Model, Scope
from converter.graph.protos import CapturedTensor, TensorInfo


def spelled(name: str) -> tuple[str, int]:
    """The node, or argument, and the number of its output that a name from outside means.

    Raises:
      ConversionError: no loader would find a tensor of that name.
    """
    node, _, number = name.partition(":")
    if not node or not number.isdecimal():
        raise ConversionError(
            f'The object graph captures the tensor "{name}", expected a node and the number of its output, such as '
            f'"{node or "node"}:0": the model is damaged, and tf.saved_model.load would not find that tensor. Export '
            "it again."
        )
    return node, int(number)


def name_for(node: str, number: int) -> str:
    """The name from outside of a node's output, or, as number 0, of an argument; `spelled` takes it apart."""
    return f"{node}:{number}"


def name_of(model: Model, scope: Scope, ref: str) -> str:
    """How a tensor is spelled from outside, which its own scope spells `ref`.

    Raises:
      ValueError: the scope has no such tensor, or its op is not known.
    """
    if scope.function is None:
        return edit.canonical_ref(ref, scope)
    if any(a.name == ref for a in scope.function.signature.input_arg):
        return name_for(ref, 0)
    for node in (n for n in scope.nodes if n.name == edit.producer_of(ref)):
        definition = ops.op_def(node.op, model)
        for number, slot in enumerate(ops.output_slots(node, definition) if definition is not None else ()):
            if scope.ref(node.name, slot.arg, slot.index, number) == ref:
                return name_for(node.name, number)
    raise ValueError(f'"{scope.name}" has no tensor "{ref}"')


def names(model: Model) -> dict[tuple[str, str], list[TensorInfo | CapturedTensor]]:
    """(scope name, name from outside) -> the messages whose `name` it is."""
    found: dict[tuple[str, str], list[TensorInfo | CapturedTensor]] = {}
    for signature in model.meta_graph.signature_def.values():
        for info in signature.outputs.values():
            found.setdefault((MAIN_GRAPH, info.name), []).append(info)
    for saved in model.object_graph.nodes:
        if saved.WhichOneof("kind") == "captured_tensor":
            captured = saved.captured_tensor
            found.setdefault((captured.concrete_function, captured.name), []).append(captured)
    return found


def rename(model: Model, scope: Scope, ref: str, new: str) -> None:
    """Who names the tensor `ref` of a scope from outside now names the tensor `new` of that scope."""
    for message in names(model).get((scope.name, name_of(model, scope, ref)), ()):
        message.name = name_of(model, scope, new)
