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
from converter.options.slices import ConverterOptions
from converter.version import __version__

if TYPE_CHECKING:
    from converter.api import convert
    from converter.proofs.cpu_twin import write_cpu_twin
    from converter.proofs.verify import verify_conversion
    from converter.reports.conversion import ConversionReport
    from converter.reports.inspection import inspect_model

__all__ = [
    "ConversionError",
    "ConversionReport",
    "ConverterOptions",
    "InternalError",
    "ModelReadError",
    "OptionsError",
    "OutputError",
    "__version__",
    "convert",
    "inspect_model",
    "parse_options",
    "read_options_file",
    "verify_conversion",
    "write_cpu_twin",
]

_LAZY = {
    "ConversionReport": "converter.reports.conversion",
    "convert": "converter.api",
    "inspect_model": "converter.reports.inspection",
    "verify_conversion": "converter.proofs.verify",
    "write_cpu_twin": "converter.proofs.cpu_twin",
}


def __getattr__(name: str) -> object:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(_LAZY[name]), name)
