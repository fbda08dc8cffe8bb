"""Frozen slices of the options, one for each pass: what the user asked for, with the defaults applied.

A slice that exists is valid as far as it can be told without a model, whether it was parsed or made in Python.
"""

import enum
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from converter.errors import OptionsError


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
        where = batch_label(self.component)
        # TensorFlow's op takes a negative number of threads like 0. Anything else out of range fails the first
        # request, and a negative max_batch_size kills the server.
        _check_at_least(0, self.num_batch_threads, f"{where}: num_batch_threads")
        _check_at_least(1, self.max_batch_size, f"{where}: max_batch_size")
        _check_at_least(0, self.batch_timeout_micros, f"{where}: batch_timeout_micros")
        _check_at_least(1, self.max_enqueued_batches, f"{where}: max_enqueued_batches")
        _check_allowed_batch_sizes(self, where)


class ConversionScope(enum.Enum):
    """Where bfloat16 is used."""

    TPU = "TPU"
    """In what runs on the TPU."""
    ALL = "ALL"
    """In the whole model, its CPU part included."""


@dataclass(frozen=True)
class BFloat16Options:
    """How float32 becomes bfloat16."""

    scope: ConversionScope = ConversionScope.TPU
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
    io_shape: bool = True
    xla_sharding: XlaShardingOptions | None = None
    """None is one core for each function."""

    def __post_init__(self) -> None:
        _check_distinct_functions(self.tpu_functions)
        _check_distinct_components(self.batch_options)
        if self.xla_sharding is not None and not self.tpu_functions:
            raise OptionsError(
                "xla_sharding_options say how the functions in tpu_functions are split over cores, but there are no "
                "tpu_functions. Name the functions, or remove xla_sharding_options."
            )


def _check_distinct_functions(functions: Sequence[FunctionRef]) -> None:
    for function, count in Counter(functions).items():
        if count > 1:
            raise OptionsError(f"tpu_functions name {function} {count} times, expected once. Remove the other entries.")


def batch_label(component: FunctionRef | None) -> str:
    """How messages name the options of `component`."""
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


def _check_at_least(least: int, found: int | None, what: str) -> None:
    if found is not None and found < least:
        raise OptionsError(f"{what} must be at least {least}, found {found}. Write {least} or more.")
