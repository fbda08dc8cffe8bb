"""tpu-convert: turns a TensorFlow 2 SavedModel into one that a Cloud TPU can serve.

    from converter import convert
    report = convert("model", "converted", 'tpu_functions { function_alias: "tpu_func" }')
    print(report.text())

Importing this package does not import TensorFlow; the first conversion does.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from converter.errors import ConversionError, InternalError, ModelReadError, OptionsError, OutputError
from converter.options.parse import parse_options, read_options_file
from converter.options.settings import ConvertSettings
from converter.options.slices import ConverterOptions
from converter.version import __version__

if TYPE_CHECKING:
    from converter.api import (
        ConversionReport,
        Inspection,
        Verification,
        convert,
        inspect_model,
        verify_conversion,
        write_cpu_twin,
    )

__all__ = [
    "ConversionError",
    "ConversionReport",
    "ConvertSettings",
    "ConverterOptions",
    "Inspection",
    "InternalError",
    "ModelReadError",
    "OptionsError",
    "OutputError",
    "Verification",
    "__version__",
    "convert",
    "inspect_model",
    "parse_options",
    "read_options_file",
    "verify_conversion",
    "write_cpu_twin",
]


def __getattr__(name: str) -> object:
    """The rest of the public names, whose modules import TensorFlow."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module("converter.api"), name)
