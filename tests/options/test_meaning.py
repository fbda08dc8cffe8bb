"""What options mean: the defaults, what is left unset, and the names of functions."""

import pytest

from converter.errors import OptionsError
from converter.options.parse import parse_options
from converter.options.slices import (
    BatchOptions,
    BFloat16Options,
    ConversionScope,
    ConverterOptions,
    FunctionKind,
    FunctionRef,
    XlaShardingOptions,
)
from tests.options.texts import ALIAS, alias, rejects


# Defaults.
def test_default_optimizations_are_on() -> None:
    options = parse_options(ALIAS)
    assert options.bfloat16 == BFloat16Options(ConversionScope.TPU, skip_safety_checks=False, filterlist=())
    assert options.io_shape


def test_default_optimizations_are_off_if_disabled_together() -> None:
    options = parse_options(ALIAS + "disable_default_optimizations: true")
    assert options.bfloat16 is None
    assert not options.io_shape


def test_enabled_wins_over_disable_default_optimizations() -> None:
    options = parse_options(
        "disable_default_optimizations: true bfloat16_optimization: ENABLED io_shape_optimization: ENABLED"
    )
    assert options.bfloat16 == BFloat16Options()
    assert options.io_shape


def test_each_optimization_can_be_disabled() -> None:
    assert parse_options(ALIAS + "bfloat16_optimization: DISABLED").bfloat16 is None
    assert not parse_options(ALIAS + "io_shape_optimization: DISABLED").io_shape


def test_options_for_bfloat16_count_as_asking_for_it() -> None:
    options = parse_options(
        "bfloat16_optimization_options { scope: ALL skip_safety_checks: true filterlist: ['Softmax', 'Tanh', 'Tanh'] }"
    )
    assert options.bfloat16 == BFloat16Options(
        ConversionScope.ALL, skip_safety_checks=True, filterlist=("Softmax", "Tanh")
    )


def test_the_default_scope_of_bfloat16_is_the_tpu() -> None:
    bfloat16 = parse_options("bfloat16_optimization_options { scope: DEFAULT }").bfloat16
    assert bfloat16 is not None and bfloat16.scope is ConversionScope.TPU


def test_unset_batch_options_stay_unset() -> None:
    (batch,) = parse_options("batch_options { max_batch_size: 8 }").batch_options
    assert batch == BatchOptions(max_batch_size=8)
    assert batch.num_batch_threads is None
    assert batch.batch_timeout_micros is None
    assert batch.max_enqueued_batches is None
    assert batch.allowed_batch_sizes == ()
    assert batch.enable_large_batch_splitting
    assert batch.component is None


def test_zero_threads_is_not_the_same_as_unset() -> None:
    (batch,) = parse_options("batch_options { max_batch_size: 8 num_batch_threads: 0 }").batch_options
    assert batch.num_batch_threads == 0


def test_max_batch_size_defaults_to_the_last_allowed_size() -> None:
    (batch,) = parse_options("batch_options { allowed_batch_sizes: [2, 4] }").batch_options
    assert batch.max_batch_size == 4


def test_max_batch_size_may_exceed_the_allowed_sizes_with_large_batch_splitting() -> None:
    (batch,) = parse_options("batch_options { max_batch_size: 64 allowed_batch_sizes: [2, 4] }").batch_options
    assert (batch.max_batch_size, batch.allowed_batch_sizes) == (64, (2, 4))


def test_large_batch_splitting_can_be_disabled() -> None:
    (batch,) = parse_options(
        "batch_options { allowed_batch_sizes: [2, 4] disable_large_batch_splitting: true }"
    ).batch_options
    assert not batch.enable_large_batch_splitting


def test_one_batch_entry_without_component_goes_with_named_ones() -> None:
    text = """
        batch_options { max_batch_size: 8 }
        batch_options { max_batch_size: 4 experimental { concrete_function_name: "__inference_f_1" } }
        batch_options { max_batch_size: 2 experimental {} }"""
    assert [batch.component for batch in parse_options(text.rpartition("batch_options")[0]).batch_options] == [
        None,
        FunctionRef(FunctionKind.CONCRETE_FUNCTION_NAME, "__inference_f_1"),
    ]
    rejects(text, "2 batch_options entries name no component, .*")


def test_functions_can_be_named_in_four_ways() -> None:
    options = parse_options("""
        tpu_functions { function_alias: "a" }
        tpu_functions { concrete_function_name: "b" }
        tpu_functions { signature_name: "c" }
        tpu_functions { jit_compile_functions: true }""")
    assert [str(function) for function in options.tpu_functions] == [
        'function_alias: "a"',
        'concrete_function_name: "b"',
        'signature_name: "c"',
        "jit_compile_functions: true",
    ]


def test_a_function_prints_as_it_is_written() -> None:
    function = alias('a "b" \\ c\n')
    assert parse_options(f"tpu_functions {{ {function} }}").tpu_functions == (function,)


def test_xla_sharding_options_are_read() -> None:
    text = (
        ALIAS
        + r"""xla_sharding_options {
        num_cores_per_replica: 2 device_assignment: [0, 0, 0, 0, 0, 0, 0, 1] topology: "\n\004\001\001\001\x02"
    }"""
    )
    expected = XlaShardingOptions(2, (0, 0, 0, 0, 0, 0, 0, 1), b"\n\x04\x01\x01\x01\x02")
    assert parse_options(text).xla_sharding == expected


def test_options_given_in_python_follow_the_same_rules() -> None:
    assert parse_options(ALIAS) == ConverterOptions(tpu_functions=(alias("f"),))
    with pytest.raises(OptionsError, match="max_batch_size must be at least 1, found 0"):
        BatchOptions(max_batch_size=0)
    with pytest.raises(OptionsError, match=r'tpu_functions name function_alias: "f" 2 times'):
        ConverterOptions(tpu_functions=(alias("f"), alias("f")))
