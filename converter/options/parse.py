"""Converter options: text -> frozen, validated slices, one for each pass.

Importing this module and parsing do not import TensorFlow, so wrong options are reported at once. What depends on the
model, such as whether a function exists, is checked where the model is at hand.
"""

import enum
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from converter.errors import OptionsError
from converter.options.text import parse_message
from protos import converter_options_pb2 as pb


class FunctionKind(enum.Enum):
    """The ways to name a function. The values are the option's field names."""

    FUNCTION_ALIAS = "function_alias"
    CONCRETE_FUNCTION_NAME = "concrete_function_name"
    SIGNATURE_NAME = "signature_name"
    JIT_COMPILE_FUNCTIONS = "jit_compile_functions"


@dataclass(frozen=True)
class FunctionRef:
    """A function as the user names it; which functions of the model that are, only the model can tell."""

    kind: FunctionKind
    name: str
    """Empty for JIT_COMPILE_FUNCTIONS, which stands for all functions with jit_compile=True."""

    def __str__(self) -> str:
        """As it is written in the options."""
        if self.kind is FunctionKind.JIT_COMPILE_FUNCTIONS:
            return "jit_compile_functions: true"
        escaped = self.name.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
        return f'{self.kind.value}: "{escaped}"'


@dataclass(frozen=True, kw_only=True)
class BatchOptions:
    """How one component is batched. None means unset: the batching pass knows the default."""

    num_batch_threads: int | None = None
    """Batches computed at a time; 0 leaves the number to the runtime's adaptive scheduler."""
    max_batch_size: int
    """Rows of the largest request that is served."""
    batch_timeout_micros: int | None = None
    """Microseconds that an incomplete batch waits for more requests; 0 is no wait."""
    allowed_batch_sizes: tuple[int, ...] = ()
    """Batches are padded to the next of these; empty is no padding."""
    max_enqueued_batches: int | None = None
    """Batches that may wait; more are refused."""
    enable_large_batch_splitting: bool = True
    """Whether the rows of one request may go into several batches."""
    component: FunctionRef | None = None
    """What is batched; None is every TPU function."""

    def __post_init__(self) -> None:
        where = _batch_label(self.component)
        # TensorFlow's op takes a negative number of threads like 0. Anything else out of range fails the first
        # request, and a negative max_batch_size kills the server.
        _check_at_least(0, self.num_batch_threads, f"{where}: num_batch_threads")
        _check_at_least(1, self.max_batch_size, f"{where}: max_batch_size")
        _check_at_least(0, self.batch_timeout_micros, f"{where}: batch_timeout_micros")
        _check_at_least(1, self.max_enqueued_batches, f"{where}: max_enqueued_batches")
        _check_allowed_batch_sizes(self, where)


class Scope(enum.Enum):
    """Where bfloat16 is used."""

    TPU = "TPU"
    """In what runs on the TPU."""
    ALL = "ALL"
    """In the whole model, its CPU part included."""


@dataclass(frozen=True)
class BFloat16Options:
    """How float32 becomes bfloat16."""

    scope: Scope = Scope.TPU
    skip_safety_checks: bool = False
    """Whether a model that has bfloat16 ops already is converted nevertheless."""
    filterlist: tuple[str, ...] = ()
    """Op types that stay float32, in addition to those that always do."""

    def __post_init__(self) -> None:
        if "" in self.filterlist:
            raise OptionsError(
                "bfloat16_optimization_options: a filterlist entry is empty; expected the type of an op, for example "
                '`filterlist: "Softmax"`. Name an op type or remove the entry.'
            )


@dataclass(frozen=True)
class XlaShardingOptions:
    """How one TPU function is split over several cores."""

    num_cores_per_replica: int
    device_assignment: tuple[int, ...] = ()
    """x, y, z, core for each core; empty is the order of the topology."""
    topology: bytes = b""
    """A serialized tensorflow.tpu.TopologyProto; empty only for a single core."""

    def __post_init__(self) -> None:
        _check_at_least(1, self.num_cores_per_replica, "xla_sharding_options: num_cores_per_replica")
        for number in self.device_assignment:
            _check_at_least(0, number, "xla_sharding_options: every number of device_assignment")
        expected = 4 * self.num_cores_per_replica
        if self.device_assignment and len(self.device_assignment) != expected:
            raise OptionsError(
                f"xla_sharding_options: device_assignment has {len(self.device_assignment)} numbers, expected "
                f"{expected}: x, y, z and core for each of num_cores_per_replica: {self.num_cores_per_replica}. Give "
                "four numbers for each core, or leave device_assignment out to use the order of the topology."
            )
        if self.num_cores_per_replica > 1 and not self.topology:
            raise OptionsError(
                "xla_sharding_options: topology is missing; it is required for num_cores_per_replica: "
                f"{self.num_cores_per_replica}, because the number of cores does not tell how they are spread over "
                "chips. Add `topology:` with a serialized tensorflow.tpu.TopologyProto that sets mesh_shape and "
                "device_coordinates."
            )


@dataclass(frozen=True)
class ConverterOptions:
    """Everything the user asked for. The defaults are those of the text form."""

    tpu_functions: tuple[FunctionRef, ...] = ()
    batch_options: tuple[BatchOptions, ...] = ()
    bfloat16: BFloat16Options | None = BFloat16Options()
    """None is off."""
    bfloat16_explicit: bool = False
    """Whether bfloat16 is on by the user's word (ENABLED, or options for it), not by default."""
    io_shape: bool = True
    io_shape_explicit: bool = False
    """Whether the IO-shape optimization is on by the user's word (ENABLED), not by default."""
    xla_sharding: XlaShardingOptions | None = None
    """None is one core for each function."""
    quantization: bytes | None = None
    """A serialized tensorflow.quantization.QuantizationOptions; None is off."""
    disable_default_optimizations: bool = False
    """As given. `bfloat16` and `io_shape` have it applied already."""

    def __post_init__(self) -> None:
        _check_distinct_functions(self.tpu_functions)
        _check_distinct_components(self.batch_options)


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
    return ConverterOptions(
        tpu_functions=_tpu_functions(message),
        batch_options=tuple(_batch_options(entry) for entry in message.batch_options),
        bfloat16=_bfloat16(message),
        bfloat16_explicit=_bfloat16_is_explicit(message),
        io_shape=_is_on(message.io_shape_optimization, message),
        io_shape_explicit=message.io_shape_optimization == pb.ConverterOptions.ENABLED,
        xla_sharding=_xla_sharding(message),
        quantization=_quantization(message),
        disable_default_optimizations=message.disable_default_optimizations,
    )


def _check_something_to_do(message: pb.ConverterOptions, source: str) -> None:
    """The default optimizations do not count: without a TPU function they would have nothing to work on."""
    if (
        message.tpu_functions
        or message.batch_options
        or _quantization(message) is not None
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


def _check_distinct_functions(functions: Sequence[FunctionRef]) -> None:
    for function, count in Counter(functions).items():
        if count > 1:
            raise OptionsError(f"tpu_functions name {function} {count} times, expected once. Remove the other entries.")


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
        f"{_batch_label(component)}: max_batch_size is missing and there are no allowed_batch_sizes to take it from. "
        "Add for example `max_batch_size: 8`."
    )


def _batch_label(component: FunctionRef | None) -> str:
    return f"batch_options ({component})" if component else "batch_options"


def _check_allowed_batch_sizes(options: BatchOptions, where: str) -> None:
    """The rules of TensorFlow's BatchFunction op, and that sizes are positive, which the op forgets to check."""
    sizes = options.allowed_batch_sizes
    if not sizes:
        return
    for size in sizes:
        _check_at_least(1, size, f"{where}: every number of allowed_batch_sizes")
    ordered = tuple(sorted(set(sizes)))
    if sizes != ordered:
        raise OptionsError(
            f"{where}: allowed_batch_sizes must increase strictly, found {_list(sizes)}. "
            f"Write `allowed_batch_sizes: {_list(ordered)}`."
        )
    _check_last_size(options, where)


def _check_last_size(options: BatchOptions, where: str) -> None:
    largest, last = options.max_batch_size, options.allowed_batch_sizes[-1]
    if last > largest:
        relation = "be at most" if options.enable_large_batch_splitting else "equal"
        raise OptionsError(
            f"{where}: the last of allowed_batch_sizes must {relation} max_batch_size, found {last} and {largest}. "
            f"Write `max_batch_size: {last}`, or remove the sizes above {largest} from allowed_batch_sizes."
        )
    if last < largest and not options.enable_large_batch_splitting:
        raise OptionsError(
            f"{where}: the last of allowed_batch_sizes must equal max_batch_size if disable_large_batch_splitting is "
            f"true, found {last} and {largest}. Write `max_batch_size: {last}`, or "
            f"`allowed_batch_sizes: {_list((*options.allowed_batch_sizes, largest))}`, or remove "
            "disable_large_batch_splitting."
        )


def _list(numbers: Sequence[int]) -> str:
    return f"[{', '.join(str(number) for number in numbers)}]"


def _check_distinct_components(entries: Sequence[BatchOptions]) -> None:
    for component, count in Counter(entry.component for entry in entries).items():
        if count > 1 and component is None:
            raise OptionsError(
                f"{count} batch_options entries name no component, expected at most one, because it applies to every "
                "TPU function. Remove the others, or name what each of them batches, for example "
                '`experimental { function_alias: "my_function" }`.'
            )
        if count > 1:
            raise OptionsError(
                f"{count} batch_options entries name {component}, expected one for each component. Remove the others."
            )


def _is_on(state: int, message: pb.ConverterOptions) -> bool:
    if state == pb.ConverterOptions.DEFAULT:
        return not bool(message.disable_default_optimizations)
    return bool(state == pb.ConverterOptions.ENABLED)


def _bfloat16(message: pb.ConverterOptions) -> BFloat16Options | None:
    given = message.HasField("bfloat16_optimization_options")
    if _is_on(message.bfloat16_optimization, message):
        options = message.bfloat16_optimization_options
        scope = Scope.ALL if options.scope == pb.BFloat16OptimizationOptions.ALL else Scope.TPU
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


def _quantization(message: pb.ConverterOptions) -> bytes | None:
    configs = message.external_feature_configs
    if not configs.HasField("quantization_options"):
        return None
    return bytes(configs.quantization_options.SerializeToString(deterministic=True))


def _check_at_least(least: int, found: int | None, what: str) -> None:
    if found is not None and found < least:
        raise OptionsError(f"{what} must be at least {least}, found {found}. Write {least} or more.")
