"""Ops that TensorFlow learns of by importing a package, such as tensorflow_text: which are missing, how to get them."""

from __future__ import annotations

import importlib
from collections.abc import Sequence

from converter.errors import ModelReadError, OptionsError
from converter.graph import ops
from converter.graph.model import Model

_REMEDY = (
    "It comes with a library: import the package that registers it with --import MODULE (in Python: import_modules), "
    "such as --import tensorflow_text."
)


def import_op_libraries(modules: Sequence[str]) -> None:
    """Imports these modules, each for the ops that it registers with TensorFlow.

    Raises:
      OptionsError: one of them cannot be imported.
    """
    for module in modules:
        try:
            importlib.import_module(module)
        except Exception as error:  # a module may fail with anything, a shared library that does not load among it
            reason = (str(error).splitlines() or [""])[0].rstrip(".")
            raise OptionsError(
                f'The module "{module}" of --import cannot be imported: {type(error).__name__}: {reason}. Expected the '
                "name of an importable Python module that registers ops. Install its package for this Python and this "
                "TensorFlow, or correct the name."
            ) from error


def unregistered_ops(model: Model) -> dict[str, str]:
    """Ops of the model that this TensorFlow does not know -> where the first node of each is."""
    found: dict[str, str] = {}
    for scope in model.scopes():
        for node in scope.nodes:
            if node.op not in found and node.op not in model.functions and not ops.is_registered(node.op):
                found[node.op] = f'the node "{node.name}" in {scope.name}'
    return found


def expect_registered_ops(model: Model) -> None:
    """Refuses a model that TensorFlow could not load for want of an op library.

    Raises:
      ModelReadError: naming the ops and the flag.
    """
    missing = unregistered_ops(model)
    if missing:
        op, where = next(iter(missing.items()))
        others = f" {len(missing) - 1} more are unknown: {', '.join(list(missing)[1:6])}." if len(missing) > 1 else ""
        raise ModelReadError(
            f'"{model.path}" uses the op "{op}" ({where}), which is not registered with this TensorFlow.{others} '
            f"{_REMEDY}"
        )
