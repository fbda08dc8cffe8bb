"""Option text -> slices.

Importing this module and parsing do not import TensorFlow, so wrong options are reported at once. What depends on the
model, such as whether a function exists, is checked where the model is at hand.
"""

from pathlib import Path

from converter.errors import OptionsError
from converter.options.slices import (
    BatchOptions,
    BFloat16Options,
    ConversionScope,
    ConverterOptions,
    FunctionKind,
    FunctionRef,
    XlaShardingOptions,
    batch_label,
)
from converter.options.text import parse_message
from protos import converter_options_pb2 as pb


def parse_options(text: str) -> ConverterOptions:
    """The options that `text` holds. Raises OptionsError, whose message says what to correct."""
    return _parse(text, "the converter options")


def read_options_file(path: str | Path) -> ConverterOptions:
    """The same for a file in UTF-8."""
    try:
        # Some editors start a UTF-8 file with a mark, which utf-8-sig skips.
        text = Path(path).read_text(encoding="utf-8-sig")
    except OSError as error:
        raise OptionsError(
            f'Cannot read the converter options file "{path}": {error.strerror}. Give the path of a readable text file.'
        ) from error
    except UnicodeDecodeError as error:
        raise OptionsError(
            f'The converter options file "{path}" is not UTF-8 text: invalid byte 0x{error.object[error.start]:02x} at '
            f"offset {error.start}. Save it as UTF-8."
        ) from error
    return _parse(text, f'the converter options file "{path}"')


def _parse(text: str, source: str) -> ConverterOptions:
    message = parse_message(text, source)
    _check_something_to_do(message, source)
    options = ConverterOptions(
        tpu_functions=_tpu_functions(message),
        batch_options=tuple(_batch_options(entry) for entry in message.batch_options),
        bfloat16=_bfloat16(message),
        io_shape=_is_on(message.io_shape_optimization, message),
        xla_sharding=_xla_sharding(message),
    )
    _check_supported(message)
    return options


def _check_something_to_do(message: pb.ConverterOptions, source: str) -> None:
    """The default optimizations do not count: without a TPU function they would have nothing to work on."""
    if (
        message.tpu_functions
        or message.batch_options
        or _asks_for_quantization(message)
        or _bfloat16_is_explicit(message)
        or message.io_shape_optimization == pb.ConverterOptions.ENABLED
    ):
        return
    alone = " xla_sharding_options only say how TPU functions run." if message.HasField("xla_sharding_options") else ""
    raise OptionsError(
        "Nothing to do: found no tpu_functions, no batch_options, no quantization_options and no optimization set to "
        f"ENABLED in {source}.{alone} Ask for at least one of them, for example "
        '`tpu_functions { function_alias: "my_function" }`.'
    )


def _tpu_functions(message: pb.ConverterOptions) -> tuple[FunctionRef, ...]:
    entries = message.tpu_functions
    return tuple(_tpu_function(entry, _nth("tpu_functions", n, len(entries))) for n, entry in enumerate(entries, 1))


def _nth(field: str, number: int, count: int) -> str:
    return f"{field} entry {number} of {count}" if count > 1 else f"the {field} entry"


def _tpu_function(entry: pb.TpuFunction, where: str) -> FunctionRef:
    field = entry.WhichOneof("name")
    if field is None:
        raise OptionsError(
            f"Missing name: {where} names no function; expected function_alias, concrete_function_name, signature_name "
            'or jit_compile_functions. Write for example `tpu_functions { function_alias: "my_function" }`, or remove '
            "the entry."
        )
    if field != FunctionKind.JIT_COMPILE_FUNCTIONS.value:
        return _function_ref(field, getattr(entry, field), where)
    if not entry.jit_compile_functions:
        raise OptionsError(
            f"{where[0].upper()}{where[1:]} says `jit_compile_functions: false`, which names no function. Remove the "
            "entry, or write `jit_compile_functions: true` to put all functions with jit_compile=True on the TPU."
        )
    return FunctionRef(FunctionKind.JIT_COMPILE_FUNCTIONS, "")


def _function_ref(field: str, name: str, where: str) -> FunctionRef:
    if not name:
        raise OptionsError(
            f'Empty name: {where} says `{field}: ""`. Write the name between the quotes, or remove the entry.'
        )
    return FunctionRef(FunctionKind(field), name)


def _batch_options(entry: pb.BatchOptions) -> BatchOptions:
    component = _batch_component(entry)
    return BatchOptions(
        num_batch_threads=entry.num_batch_threads if entry.HasField("num_batch_threads") else None,
        max_batch_size=_max_batch_size(entry, component),
        batch_timeout_micros=entry.batch_timeout_micros if entry.HasField("batch_timeout_micros") else None,
        allowed_batch_sizes=tuple(entry.allowed_batch_sizes),
        max_enqueued_batches=entry.max_enqueued_batches if entry.HasField("max_enqueued_batches") else None,
        enable_large_batch_splitting=not entry.disable_large_batch_splitting,
        component=component,
    )


def _batch_component(entry: pb.BatchOptions) -> FunctionRef | None:
    field = entry.experimental.WhichOneof("batch_component")
    return _function_ref(field, getattr(entry.experimental, field), "batch_options.experimental") if field else None


def _max_batch_size(entry: pb.BatchOptions, component: FunctionRef | None) -> int:
    if entry.HasField("max_batch_size"):
        return int(entry.max_batch_size)
    if entry.allowed_batch_sizes:
        # The last one, if they are as they should be. If not, the greatest lets the message be about what is wrong.
        return int(max(1, *entry.allowed_batch_sizes))
    raise OptionsError(
        f"{batch_label(component)}: max_batch_size is missing and there are no allowed_batch_sizes to take it from. "
        "Add for example `max_batch_size: 8`."
    )


def _is_on(state: int, message: pb.ConverterOptions) -> bool:
    if state == pb.ConverterOptions.DEFAULT:
        return not bool(message.disable_default_optimizations)
    return bool(state == pb.ConverterOptions.ENABLED)


def _bfloat16(message: pb.ConverterOptions) -> BFloat16Options | None:
    given = message.HasField("bfloat16_optimization_options")
    if _is_on(message.bfloat16_optimization, message):
        options = message.bfloat16_optimization_options
        everywhere = options.scope == pb.BFloat16OptimizationOptions.ALL
        scope = ConversionScope.ALL if everywhere else ConversionScope.TPU
        return BFloat16Options(scope, options.skip_safety_checks, tuple(dict.fromkeys(options.filterlist)))
    if not given:
        return None
    if message.bfloat16_optimization == pb.ConverterOptions.DISABLED:
        raise OptionsError(
            "bfloat16_optimization_options are given, but `bfloat16_optimization: DISABLED` turns the optimization "
            "off. Write `bfloat16_optimization: ENABLED`, or remove bfloat16_optimization_options."
        )
    raise OptionsError(
        "bfloat16_optimization_options are given, but disable_default_optimizations turns the optimization off. Add "
        "`bfloat16_optimization: ENABLED`, or remove bfloat16_optimization_options."
    )


def _bfloat16_is_explicit(message: pb.ConverterOptions) -> bool:
    """Who sets the details of an optimization wants it, although it may be on by default."""
    enabled = message.bfloat16_optimization == pb.ConverterOptions.ENABLED
    return bool(enabled or message.HasField("bfloat16_optimization_options"))


def _xla_sharding(message: pb.ConverterOptions) -> XlaShardingOptions | None:
    if not message.HasField("xla_sharding_options"):
        return None
    options = message.xla_sharding_options
    return XlaShardingOptions(options.num_cores_per_replica, tuple(options.device_assignment), options.topology)


def _asks_for_quantization(message: pb.ConverterOptions) -> bool:
    return bool(message.external_feature_configs.HasField("quantization_options"))


def _check_supported(message: pb.ConverterOptions) -> None:
    """What the options can say and no pass does."""
    if _asks_for_quantization(message):
        raise OptionsError(
            "external_feature_configs { quantization_options } is not supported yet. Remove it; the other options "
            "work without it."
        )
