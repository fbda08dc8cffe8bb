"""Function aliases, names, signatures and jit_compile -> concrete functions of the model."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from converter.analysis import tpu
from converter.errors import ConversionError, nearest
from converter.graph import calls, outside
from converter.graph.model import MAIN_GRAPH, Model
from converter.options.slices import FunctionKind, FunctionRef


@dataclass(frozen=True)
class ResolvedFunction:
    """A concrete function of the model and the name by which its user asked for it."""

    function: str
    given: str
    reference: FunctionRef

    def __str__(self) -> str:
        """For messages: the name that the user gave, and behind it what that stands for."""
        return f'"{self.given}"' + (f" ({self.function})" if self.function != self.given else "")


def resolve(model: Model, reference: FunctionRef) -> list[ResolvedFunction]:
    """All concrete functions that one reference of the options names.

    Empty only for jit_compile_functions, if all of them run on the TPU already.

    Raises:
      ConversionError: nothing in the model has that name; the message lists what exists, nearest first.
    """
    if reference.kind is FunctionKind.JIT_COMPILE_FUNCTIONS:
        names = _jit_compiled(model)
        return [ResolvedFunction(n, n, reference) for n in names]
    if reference.kind is FunctionKind.FUNCTION_ALIAS:
        names = list(model.aliases.get(reference.name, ()))
        if not names:
            raise _unknown(reference, "function alias", model.aliases, _alias_hint(model))
    elif reference.kind is FunctionKind.CONCRETE_FUNCTION_NAME:
        names = [reference.name] if reference.name in model.functions else []
        if not names:
            raise _unknown(reference, "function", model.functions, "")
    else:
        if reference.name not in model.signatures:
            raise _unknown(reference, "signature", model.signatures, "")
        function = outside.signature_function(model, reference.name)
        if function is None or function not in model.functions:
            raise ConversionError(
                f'Signature "{reference.name}" cannot be used: no function of the model computes it, its outputs are '
                "made by main graph nodes. Name a function by function_alias or concrete_function_name instead."
            )
        names = [function]
    return [ResolvedFunction(n, reference.name, reference) for n in names]


def resolve_all(model: Model, references: tuple[FunctionRef, ...], field: str) -> list[ResolvedFunction]:
    """`resolve` for every entry of an options field; the same function twice, by whatever route, is an error."""
    found: dict[str, ResolvedFunction] = {}
    for reference in references:
        for resolved in resolve(model, reference):
            earlier = found.setdefault(resolved.function, resolved)
            if earlier is not resolved:
                raise ConversionError(
                    f'The function "{resolved.function}" is named twice in {field}: by {earlier.reference} and by '
                    f"{resolved.reference}. Name each function once: remove one of the two entries."
                )
    return list(found.values())


def same_signatures(model: Model, resolved: ResolvedFunction) -> list[ResolvedFunction]:
    """Other signatures that compute what a signature named by signature_name does, with the same variables.

    A Keras 3 `model.export()` has `serve` and `serving_default`, two wrappers of one function.
    """
    if resolved.reference.kind is not FunctionKind.SIGNATURE_NAME:
        return []
    content = _content(model, resolved.function)
    functions = {
        key: outside.signature_function(model, key) for key in sorted(model.signatures) if key != resolved.given
    }
    return [
        ResolvedFunction(name, key, resolved.reference)
        for key, name in functions.items()
        if name is not None and name != resolved.function and content is not None and _content(model, name) == content
    ]


def _content(model: Model, name: str) -> tuple[object, ...] | None:
    """What a function computes and captures, whatever it is called; None if its captures are not recorded."""
    function, recorded = model.functions.get(name), model.object_graph.concrete_functions
    if function is None or name not in recorded:
        return None
    signature = function.signature
    return (
        [(a.name, a.type) for a in signature.input_arg],
        [(r.name, r.type, function.ret[r.name]) for r in signature.output_arg],
        [node.SerializeToString(deterministic=True) for node in function.node_def],
        list(recorded[name].bound_inputs),
    )


def _jit_compiled(model: Model) -> list[str]:
    # Only what a user can call counts: forward and backward variants made for gradients carry the attribute too.
    graph = calls.call_graph(model)
    served = set(graph.reachable(outside.exposed_functions(model) | set(graph.callees[MAIN_GRAPH])))
    names = [
        name
        for name, function in model.functions.items()
        if name in served and calls.JIT_ATTR in function.attr and function.attr[calls.JIT_ATTR].b
    ]
    on_tpu = set(tpu.tpu_scopes(model))
    if not names:
        raise ConversionError(
            "jit_compile_functions is set, but the model has no function that was traced with "
            "@tf.function(jit_compile=True). Name the functions by function_alias, concrete_function_name or "
            "signature_name instead."
        )
    return [name for name in names if name not in on_tpu]


def _alias_hint(model: Model) -> str:
    if model.aliases:
        return ""
    signatures = nearest("", model.signatures)
    return (
        " The model was exported without function aliases (tf.saved_model.SaveOptions(function_aliases=...)): name a "
        f"signature (signature_name: {signatures}) or a concrete function (concrete_function_name) instead."
    )


def _unknown(reference: FunctionRef, what: str, existing: Iterable[str], hint: str) -> ConversionError:
    names = nearest(reference.name, existing)
    return ConversionError(f'The model has no {what} "{reference.name}". It has: {names}.{hint}')
