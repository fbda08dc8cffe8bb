"""Who names functions and tensors from outside: signatures, and the object graph.

A function spells its tensors "node:output_arg:0". From outside they are spelled as in a graph, "node:1", the outputs of
a node counted through and arguments being nodes: the loaders look them up with `get_tensor_by_name`.
"""

from __future__ import annotations

from collections.abc import Container

from converter.errors import ConversionError
from converter.graph import ops, refs
from converter.graph.model import MAIN_GRAPH, Model, Scope
from converter.graph.protos import CapturedTensor, FunctionDef, SavedObject, TensorInfo
from converter.graph.scope_index import scope_index

# --- functions --------------------------------------------------------------------------------------------------


def functions_of(saved: SavedObject) -> list[str]:
    """The functions by which users of the loaded model can call this node of the object graph."""
    kind = saved.WhichOneof("kind")
    if kind == "function":
        return list(saved.function.concrete_functions)
    return [saved.bare_concrete_function.concrete_function_name] if kind == "bare_concrete_function" else []


def exposed_functions(model: Model) -> set[str]:
    """Functions that users of the loaded model can call, as the nodes of the object graph name them."""
    return {name for saved in model.object_graph.nodes for name in functions_of(saved)}


def signature_function(model: Model, key: str) -> str | None:
    """The function that computes signature `key`, as the object graph and the main graph name it.

    None for a signature without a function (a model whose signature is made of main graph nodes).
    """
    for saved in _signature_objects(model, key):
        if found := functions_of(saved):
            return found[0]
    nodes = scope_index(model, MAIN_GRAPH).nodes
    for output in model.meta_graph.signature_def[key].outputs.values():
        producer = refs.maker_of(output.name, nodes)
        if producer is not None and "f" in producer.attr:
            return producer.attr["f"].func.name
    return None


def _signature_objects(model: Model, key: str) -> list[SavedObject]:
    """The nodes of the object graph that the loaded model has as `signatures[key]`."""
    objects = model.object_graph.nodes
    held = next((c.node_id for c in objects[0].children if c.local_name == "signatures"), None) if objects else None
    return [] if held is None else [objects[c.node_id] for c in objects[held].children if c.local_name == key]


def captures_of(model: Model, function_name: str) -> dict[int, int]:
    """Arguments that the object graph binds whenever the function is called -> id of the node bound there.

    They are the last arguments. None of a function that the object graph does not list.
    """
    concrete_functions = model.object_graph.concrete_functions
    if function_name not in concrete_functions or function_name not in model.functions:
        return {}
    bound = concrete_functions[function_name].bound_inputs
    first = len(model.functions[function_name].signature.input_arg) - len(bound)
    return {first + i: node_id for i, node_id in enumerate(bound)}


def not_jit_compiled(model: Model, names: Container[str]) -> None:
    """What the object graph calls by one of these functions is no longer compiled by XLA for the CPU."""
    for saved in model.object_graph.nodes:
        if saved.WhichOneof("kind") == "function" and any(name in names for name in functions_of(saved)):
            saved.function.function_spec.ClearField("jit_compile")


# --- tensors ----------------------------------------------------------------------------------------------------


def spelled(name: str) -> tuple[str, int]:
    """The node, or argument, and the number of its output that a name from outside means.

    Raises:
      ConversionError: no loader would find a tensor of that name.
    """
    node, number = refs.split_ref(name)
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
        return refs.canonical_ref(ref, scope)
    if any(a.name == ref for a in scope.function.signature.input_arg):
        return name_for(ref, 0)
    for node in (n for n in scope.nodes if n.name == refs.producer_of(ref)):
        definition = ops.op_def(node.op, model)
        for number, slot in enumerate(ops.output_slots(node, definition) if definition is not None else ()):
            if scope.ref(node.name, slot.arg, slot.index, number) == ref:
                return name_for(node.name, number)
    raise ValueError(f'"{scope.name}" has no tensor "{ref}"')


def captured_tensors(model: Model) -> list[CapturedTensor]:
    """The tensors inside functions that the object graph names: what gradient functions captured."""
    return [s.captured_tensor for s in model.object_graph.nodes if s.WhichOneof("kind") == "captured_tensor"]


def names(model: Model) -> dict[tuple[str, str], list[TensorInfo | CapturedTensor]]:
    """(scope name, name from outside) -> the messages whose `name` it is."""
    found: dict[tuple[str, str], list[TensorInfo | CapturedTensor]] = {}
    for signature in model.meta_graph.signature_def.values():
        for info in signature.outputs.values():
            found.setdefault((MAIN_GRAPH, info.name), []).append(info)
    for captured in captured_tensors(model):
        found.setdefault((captured.concrete_function, captured.name), []).append(captured)
    return found


def rename(model: Model, scope: Scope, ref: str, new: str) -> None:
    """Who names the tensor `ref` of a scope from outside now names the tensor `new` of that scope."""
    for message in names(model).get((scope.name, name_of(model, scope, ref)), ()):
        message.name = name_of(model, scope, new)


def follow_body(model: Model, outer: FunctionDef, inner: FunctionDef) -> None:
    """The body of `outer` is now that of `inner`: who names a tensor of it, arguments apart, now names it there."""
    arguments = {a.name for a in outer.signature.input_arg}
    for captured in captured_tensors(model):
        if captured.concrete_function == outer.signature.name and refs.producer_of(captured.name) not in arguments:
            captured.concrete_function = inner.signature.name


def serving_roots(model: Model) -> dict[str, tuple[str, ...]]:
    """Signature key -> names of the main graph nodes that compute its outputs."""
    return {
        key: tuple(sorted({refs.producer_of(o.name) for o in signature.outputs.values() if o.name}))
        for key, signature in sorted(model.signatures.items())
    }
