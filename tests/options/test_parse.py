"""Option text -> options: the manual's own strings, the defaults, and every mistake with its message."""

import dataclasses
import re
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from converter.errors import OptionsError
from converter.options.parse import (
    BatchOptions,
    BFloat16Options,
    ConverterOptions,
    FunctionKind,
    FunctionRef,
    Scope,
    XlaShardingOptions,
    parse_options,
    read_options_file,
)
from protos import quantization_options_pb2

ALIAS = 'tpu_functions { function_alias: "f" }\n'


def alias(name: str) -> FunctionRef:
    return FunctionRef(FunctionKind.FUNCTION_ALIAS, name)


def signature(name: str) -> FunctionRef:
    return FunctionRef(FunctionKind.SIGNATURE_NAME, name)


def rejects(text: str, message: str) -> None:
    """`text` is refused with the whole of `message`, a regular expression in which only `.*` is special."""
    pattern = ".*".join(re.escape(part) for part in message.split(".*"))
    with pytest.raises(OptionsError) as caught:
        parse_options(text)
    assert re.fullmatch(pattern, str(caught.value)), str(caught.value)


# The option strings of the manual, letter for letter.

CONVERTER_IMAGE = """
    tpu_functions {
      function_alias: "tpu_func"
    }
    batch_options {
      num_batch_threads: 2
      max_batch_size: 8
      batch_timeout_micros: 5000
      allowed_batch_sizes: 2
      allowed_batch_sizes: 4
      allowed_batch_sizes: 8
      max_enqueued_batches: 10
    }
"""

SEVERAL_FUNCTIONS = """\
tpu_functions {
  function_alias: "tpu_func_1"
}
tpu_functions {
  function_alias: "tpu_func_2"
}
"""

QUANTIZATION = r""" \
    tpu_functions { \
      function_alias: "tpu_func" \
    } \
    external_feature_configs { \
      quantization_options { \
        signature_keys: "serving_default" \
        representative_datasets: { \
          key: "serving_default" \
          value: { \
            tfrecord_file_path: "${TF_RECORD_FILE}" \
          } \
        } \
      } \
    } """

BATCHING = """\
batch_options {
  num_batch_threads: 2
  max_batch_size: 8
  batch_timeout_micros: 5000
  allowed_batch_sizes: 2
  allowed_batch_sizes: 4
  allowed_batch_sizes: 8
  max_enqueued_batches: 10
}
"""

WITHOUT_OPTIMIZATIONS = """\
# Disable both optimizations
disable_default_optimizations: true

# Or disable them individually
io_shape_optimization: DISABLED
bfloat16_optimization: DISABLED
"""

CONCRETE_FUNCTION = """
    tpu_functions {
      concrete_function_name: "__inference_serve_24"
    }"""

SIGNATURE_BATCHING = """\
batch_options {
  num_batch_threads: 2
  max_batch_size: 8
  batch_timeout_micros: 5000
  allowed_batch_sizes: 2
  allowed_batch_sizes: 4
  allowed_batch_sizes: 8
  max_enqueued_batches: 10
  experimental {
    signature_name: "serving_default"
  }
}
"""

FUNCTION_BATCHING = """\
batch_options {
  num_batch_threads: 2
  max_batch_size: 8
  batch_timeout_micros: 5000
  allowed_batch_sizes: 2
  allowed_batch_sizes: 4
  allowed_batch_sizes: 8
  max_enqueued_batches: 10
  experimental {
    function_alias: "batch_func"
  }
}
"""

UPDATED_BATCHING = """\
batch_options {
  num_batch_threads: 2
  max_batch_size: 8
  batch_timeout_micros: 5000
  allowed_batch_sizes: 2
  allowed_batch_sizes: 4
  allowed_batch_sizes: 8
  max_enqueued_batches: 10
}
disable_default_optimizations=True
"""

MANUAL_BATCH = BatchOptions(
    num_batch_threads=2,
    max_batch_size=8,
    batch_timeout_micros=5000,
    allowed_batch_sizes=(2, 4, 8),
    max_enqueued_batches=10,
    enable_large_batch_splitting=True,
    component=None,
)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (CONVERTER_IMAGE, ConverterOptions(tpu_functions=(alias("tpu_func"),), batch_options=(MANUAL_BATCH,))),
        (SEVERAL_FUNCTIONS, ConverterOptions(tpu_functions=(alias("tpu_func_1"), alias("tpu_func_2")))),
        (
            QUANTIZATION,
            ConverterOptions(
                tpu_functions=(alias("tpu_func"),),
                quantization=quantization_options_pb2.QuantizationOptions(
                    signature_keys=["serving_default"],
                    representative_datasets={
                        "serving_default": quantization_options_pb2.RepresentativeDatasetFile(
                            tfrecord_file_path="${TF_RECORD_FILE}"
                        )
                    },
                ).SerializeToString(),
            ),
        ),
        (BATCHING, ConverterOptions(batch_options=(MANUAL_BATCH,))),
        (
            CONCRETE_FUNCTION,
            ConverterOptions(tpu_functions=(FunctionRef(FunctionKind.CONCRETE_FUNCTION_NAME, "__inference_serve_24"),)),
        ),
        (
            SIGNATURE_BATCHING,
            ConverterOptions(
                batch_options=(dataclasses.replace(MANUAL_BATCH, component=signature("serving_default")),)
            ),
        ),
        (
            FUNCTION_BATCHING,
            ConverterOptions(batch_options=(dataclasses.replace(MANUAL_BATCH, component=alias("batch_func")),)),
        ),
        (
            UPDATED_BATCHING,
            ConverterOptions(
                batch_options=(MANUAL_BATCH,), bfloat16=None, io_shape=False, disable_default_optimizations=True
            ),
        ),
        (
            ALIAS + WITHOUT_OPTIMIZATIONS,
            ConverterOptions(
                tpu_functions=(alias("f"),), bfloat16=None, io_shape=False, disable_default_optimizations=True
            ),
        ),
    ],
    ids=[
        "converter image",
        "several functions",
        "quantization",
        "batching",
        "concrete function",
        "signature batching",
        "function batching",
        "updated batching",
        "without optimizations",
    ],
)
def test_option_strings_of_the_manual_are_read_as_printed(text: str, expected: ConverterOptions) -> None:
    assert parse_options(text) == expected


def test_the_manuals_way_to_disable_optimizations_is_not_a_task_of_its_own() -> None:
    rejects(WITHOUT_OPTIMIZATIONS, "Nothing to do: .*")


# The two slips.


def test_a_backslash_is_white_space_before_white_space_and_at_the_end() -> None:
    text = 'tpu_functions { \\ \t\n function_alias: "f"\\\r\n}\\ disable_default_optimizations: true \\'
    assert parse_options(text).tpu_functions == (alias("f"),)


def test_a_backslash_inside_a_string_belongs_to_the_string() -> None:
    assert parse_options(r'tpu_functions { function_alias: "a\\ b\" c" }').tpu_functions == (alias('a\\ b" c'),)


def test_a_string_cannot_be_continued_on_the_next_line() -> None:
    rejects(
        'tpu_functions {\n  function_alias: "a\\\n  b"\n}',
        'Syntax error at line 2, column 19 of the converter options, near `"a\\`: String missing ending quote: '
        ".*. Close the string on the line where it starts.",
    )


def test_an_equals_sign_separates_name_and_value() -> None:
    options = parse_options('tpu_functions = { function_alias = "a=b # c" } bfloat16_optimization =DISABLED')
    assert options.tpu_functions == (alias("a=b # c"),)
    assert options.bfloat16 is None


@pytest.mark.parametrize("value", ["True", "true", "t", "1"])
def test_true_has_several_spellings(value: str) -> None:
    assert parse_options(f"{ALIAS} disable_default_optimizations={value}").disable_default_optimizations


def test_comments_may_hold_anything() -> None:
    assert parse_options("# it's a = \\\n" + ALIAS + "# \"open { '").tpu_functions == (alias("f"),)


def test_slips_do_not_move_the_position_of_a_mistake() -> None:
    rejects(
        'tpu_functions { \\\n  function_alias="f" \\\n} \\\nxx=1',
        'Unknown field "xx" at line 4, column 1 of the converter options; expected tpu_functions, .*.',
    )


# Defaults.


def test_default_optimizations_are_on() -> None:
    options = parse_options(ALIAS)
    assert options.bfloat16 == BFloat16Options(Scope.TPU, skip_safety_checks=False, filterlist=())
    assert options.io_shape
    assert not options.bfloat16_explicit and not options.io_shape_explicit


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
    assert options.bfloat16_explicit and options.io_shape_explicit


def test_each_optimization_can_be_disabled() -> None:
    assert parse_options(ALIAS + "bfloat16_optimization: DISABLED").bfloat16 is None
    assert not parse_options(ALIAS + "io_shape_optimization: DISABLED").io_shape


def test_options_for_bfloat16_count_as_asking_for_it() -> None:
    options = parse_options(
        "bfloat16_optimization_options { scope: ALL skip_safety_checks: true filterlist: ['Softmax', 'Tanh', 'Tanh'] }"
    )
    assert options.bfloat16 == BFloat16Options(Scope.ALL, skip_safety_checks=True, filterlist=("Softmax", "Tanh"))
    assert options.bfloat16_explicit


def test_the_default_scope_of_bfloat16_is_the_tpu() -> None:
    bfloat16 = parse_options("bfloat16_optimization_options { scope: DEFAULT }").bfloat16
    assert bfloat16 is not None and bfloat16.scope is Scope.TPU


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


# Mistakes in the text.


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            'tpu_function { function_alias: "f" }',
            'Unknown field "tpu_function" at line 1, column 1 of the converter options; did you mean "tpu_functions"?',
        ),
        (
            'tpu_functions {\n  alias: "f"\n}',
            'Unknown field "alias" inside "tpu_functions", at line 2, column 3 of the converter options; did you mean '
            '"function_alias"?',
        ),
        (
            "max_batch_size: 8",
            'Unknown field "max_batch_size" at line 1, column 1 of the converter options; it belongs inside '
            "batch_options { ... }.",
        ),
        (
            'batch_options { signature_name: "s" }',
            'Unknown field "signature_name" inside "batch_options", at line 1, column 17 of the converter options; it '
            "belongs inside tpu_functions { ... } or batch_options.experimental { ... }.",
        ),
        (
            "batch_options { disable_default_optimizations: true }",
            'Unknown field "disable_default_optimizations" inside "batch_options", at line 1, column 17 of the '
            "converter options; write it outside of all braces.",
        ),
        (
            "tpu_functions { xyz: 1 }",
            'Unknown field "xyz" inside "tpu_functions", at line 1, column 17 of the converter options; expected '
            "function_alias, concrete_function_name, jit_compile_functions or signature_name.",
        ),
        (
            "bfloat16_optimization: enable",
            'Unknown value "enable" of "bfloat16_optimization" at line 1, column 24 of the converter options; did you '
            'mean "ENABLED"? The values are DEFAULT, ENABLED or DISABLED.',
        ),
        (
            "bfloat16_optimization_options {\n  scope = CPU\n}",
            'Unknown value "CPU" of "scope" at line 2, column 11 of the converter options.* The values are DEFAULT, '
            "TPU or ALL.",
        ),
        (
            "io_shape_optimization: 3",
            'Unknown value 3 of "io_shape_optimization" in the converter options; the values are DEFAULT, ENABLED or '
            "DISABLED.",
        ),
        (
            "io_shape_optimization: 99999999999",
            "Unknown value in the converter options: Value out of range: 99999999999. Write values by name, such as "
            "ENABLED.",
        ),
        (
            "external_feature_configs { quantization_options { op_set: 9 } }",
            'Unknown value 9 of "external_feature_configs.quantization_options.op_set" in the converter options; .*',
        ),
        (
            "batch_options { num_batch_threads 2 }",
            'Syntax error at line 1, column 35 of the converter options, near `2 }`: Expected ":". Write each option '
            "as `name: value` or `name { ... }`.",
        ),
        (
            "batch_options { num_batch_threads: two }",
            "Syntax error at line 1, column 36 of the converter options, near `two }`: Couldn't parse integer: two. "
            "Write a whole number, at most 2147483647.",
        ),
        (
            "batch_options { max_batch_size: 3000000000 }",
            "Syntax error at line 1, column 33 of the converter options, near `3000000000 }`: Value out of range: "
            "3000000000. Write a whole number, at most 2147483647.",
        ),
        (
            "disable_default_optimizations: yes",
            'Syntax error at line 1, column 32 of the converter options, near `yes`: Expected "true" or "false". '
            "Write true or false.",
        ),
        (
            "tpu_functions { function_alias: f }",
            "Syntax error at line 1, column 33 of the converter options, near `f }`: Expected string but found: 'f'. "
            "Write text between straight double quotes.",
        ),
        (
            r'tpu_functions { function_alias: "\xff" }',
            "Syntax error at line 1, .*Couldn't parse string: .*. Write text that is valid UTF-8.",
        ),
        (
            'tpu_functions { function_alias: "f"',
            'Syntax error at line 1, .*: Expected "}". A `{` is never closed: add the missing `}`.',
        ),
        (
            "'tpu_functions { }'",
            "Syntax error at line 1, column 1 of the converter options, near `'tpu_functions { }'`: .*. Leave out "
            "quotes that are not around a value.",
        ),
        (
            'tpu_functions { function_alias: "f" function_alias: "g" }',
            '"function_alias" is given twice inside "tpu_functions", at line 1, column 53 of the converter options; '
            "write one tpu_functions { ... } entry for each function.",
        ),
        (
            'tpu_functions { function_alias: "f" signature_name: "s" }',
            '"signature_name" at line 1, column 37 of the converter options comes after "function_alias" inside '
            '"tpu_functions", which may hold only one of the two; write one tpu_functions { ... } entry for each '
            "function.",
        ),
        (
            'batch_options { experimental { function_alias: "f" signature_name: "s" } }',
            '"signature_name" at line 1, .*; write one batch_options { ... } entry for each component.',
        ),
        (
            "io_shape_optimization: ENABLED\nio_shape_optimization: DISABLED",
            '"io_shape_optimization" is given twice at line 2, column 24 of the converter options; leave one of them '
            "out.",
        ),
        (
            'tpu_functions {\n  function_alias: "f\udcff"\n}',
            "Invalid UTF-8 at line 2, column 21 of the converter options; write that character in UTF-8.",
        ),
    ],
)
def test_a_mistake_in_the_text_is_located_and_explained(text: str, message: str) -> None:
    rejects(text, message)


# Mistakes in what the text asks for.


NOTHING = (
    "Nothing to do: found no tpu_functions, no batch_options, no quantization_options and no optimization set to "
    "ENABLED in the converter options..* Ask for at least one of them, for example "
    '`tpu_functions { function_alias: "my_function" }`.'
)


@pytest.mark.parametrize(
    "text",
    [
        "",
        " \n# only a comment",
        "disable_default_optimizations: true",
        "io_shape_optimization: DEFAULT",
        "external_feature_configs {}",
        "xla_sharding_options { num_cores_per_replica: 1 }",
    ],
)
def test_options_must_ask_for_something(text: str) -> None:
    rejects(text, NOTHING)


@pytest.mark.parametrize(
    "text",
    [
        ALIAS,
        "batch_options { max_batch_size: 8 }",
        "io_shape_optimization: ENABLED",
        "bfloat16_optimization: ENABLED",
        "external_feature_configs { quantization_options {} }",
    ],
)
def test_one_request_is_enough(text: str) -> None:
    parse_options(text)


def test_a_tpu_function_needs_a_name() -> None:
    rejects(
        ALIAS + "tpu_functions {}",
        "Missing name: tpu_functions entry 2 of 2 names no function; expected function_alias, concrete_function_name, "
        "signature_name or jit_compile_functions. Write for example "
        '`tpu_functions { function_alias: "my_function" }`, or remove the entry.',
    )
    rejects(
        'tpu_functions { signature_name: "" }',
        'Empty name: the tpu_functions entry says `signature_name: ""`. Write the name between the quotes, or remove '
        "the entry.",
    )


def test_a_tpu_function_is_named_once() -> None:
    rejects(
        ALIAS + 'tpu_functions { signature_name: "f" }' + ALIAS,
        'tpu_functions name function_alias: "f" 2 times, expected once. Remove the other entries.',
    )
    rejects(
        "tpu_functions { jit_compile_functions: true } tpu_functions { jit_compile_functions: true }",
        "tpu_functions name jit_compile_functions: true 2 times, .*",
    )


def test_jit_compile_functions_cannot_be_false() -> None:
    rejects(
        "tpu_functions { jit_compile_functions: false }",
        "The tpu_functions entry says `jit_compile_functions: false`, which names no function. Remove the entry, or "
        "write `jit_compile_functions: true` to put all functions with jit_compile=True on the TPU.",
    )


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ("", "max_batch_size is missing and there are no allowed_batch_sizes to take it from. Add for example .*"),
        ("max_batch_size: 0", "max_batch_size must be at least 1, found 0. Write 1 or more."),
        ("max_batch_size: -8", "max_batch_size must be at least 1, found -8. Write 1 or more."),
        (
            "max_batch_size: 8 num_batch_threads: -1",
            "num_batch_threads must be at least 0, found -1. Write 0 or more.",
        ),
        (
            "max_batch_size: 8 batch_timeout_micros: -5",
            "batch_timeout_micros must be at least 0, found -5. Write 0 or more.",
        ),
        (
            "max_batch_size: 8 max_enqueued_batches: 0",
            "max_enqueued_batches must be at least 1, found 0. Write 1 or more.",
        ),
        (
            "allowed_batch_sizes: [0, 2]",
            "every number of allowed_batch_sizes must be at least 1, found 0. Write 1 or more.",
        ),
        (
            "allowed_batch_sizes: -2",
            "every number of allowed_batch_sizes must be at least 1, found -2. Write 1 or more.",
        ),
        (
            "max_batch_size: 8 allowed_batch_sizes: [4, 2, 2, 8]",
            "allowed_batch_sizes must increase strictly, found [4, 2, 2, 8]. Write `allowed_batch_sizes: [2, 4, 8]`.",
        ),
        (
            "allowed_batch_sizes: [8, 4]",
            "allowed_batch_sizes must increase strictly, found [8, 4]. Write `allowed_batch_sizes: [4, 8]`.",
        ),
        (
            "max_batch_size: 4 allowed_batch_sizes: [4, 8]",
            "the last of allowed_batch_sizes must be at most max_batch_size, found 8 and 4. Write `max_batch_size: 8`, "
            "or remove the sizes above 4 from allowed_batch_sizes.",
        ),
        (
            "max_batch_size: 4 allowed_batch_sizes: [4, 8] disable_large_batch_splitting: true",
            "the last of allowed_batch_sizes must equal max_batch_size, found 8 and 4. Write `max_batch_size: 8`, .*",
        ),
        (
            "max_batch_size: 16 allowed_batch_sizes: [4, 8] disable_large_batch_splitting: true",
            "the last of allowed_batch_sizes must equal max_batch_size if disable_large_batch_splitting is true, found "
            "8 and 16. Write `max_batch_size: 8`, or `allowed_batch_sizes: [4, 8, 16]`, or remove "
            "disable_large_batch_splitting.",
        ),
    ],
)
def test_batch_options_follow_the_rules_of_the_batching_op(fields: str, message: str) -> None:
    rejects(f"batch_options {{ {fields} }}", f"batch_options: {message}")
    named = f'batch_options {{ {fields} experimental {{ signature_name: "s" }} }}'
    rejects(named, f'batch_options (signature_name: "s"): {message}')


def test_a_component_is_batched_once() -> None:
    entry = 'batch_options { max_batch_size: 8 experimental { function_alias: "f" } }'
    rejects(
        entry + entry,
        '2 batch_options entries name function_alias: "f", expected one for each component. Remove the others.',
    )


def test_only_one_batch_entry_may_lack_a_component() -> None:
    rejects(
        BATCHING + BATCHING,
        "2 batch_options entries name no component, expected at most one, because it applies to every TPU function. "
        "Remove the others, or name what each of them batches, for example "
        '`experimental { function_alias: "my_function" }`.',
    )


def test_a_batch_component_needs_a_name() -> None:
    rejects(
        'batch_options { max_batch_size: 8 experimental { function_alias: "" } }',
        'Empty name: batch_options.experimental says `function_alias: ""`. .*',
    )


def test_options_for_bfloat16_need_bfloat16() -> None:
    details = ALIAS + "bfloat16_optimization_options { scope: ALL }\n"
    rejects(
        details + "bfloat16_optimization: DISABLED",
        "bfloat16_optimization_options are given, but `bfloat16_optimization: DISABLED` turns the optimization off. "
        "Write `bfloat16_optimization: ENABLED`, or remove bfloat16_optimization_options.",
    )
    rejects(
        details + "disable_default_optimizations: true",
        "bfloat16_optimization_options are given, but disable_default_optimizations turns the optimization off. Add "
        "`bfloat16_optimization: ENABLED`, or remove bfloat16_optimization_options.",
    )
    parse_options(details + "disable_default_optimizations: true bfloat16_optimization: ENABLED")


def test_a_filterlist_entry_needs_a_name() -> None:
    rejects(
        'bfloat16_optimization_options { filterlist: "" }',
        "bfloat16_optimization_options: a filterlist entry is empty; expected the type of an op, for example "
        '`filterlist: "Softmax"`. Name an op type or remove the entry.',
    )


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ("", "num_cores_per_replica must be at least 1, found 0. Write 1 or more."),
        ("num_cores_per_replica: -1", "num_cores_per_replica must be at least 1, found -1. Write 1 or more."),
        (
            "num_cores_per_replica: 1 device_assignment: [0, 0, -1, 0]",
            "every number of device_assignment must be at least 0, found -1. Write 0 or more.",
        ),
        (
            'num_cores_per_replica: 2 topology: "t" device_assignment: [0, 0, 0, 0]',
            "device_assignment has 4 numbers, expected 8: x, y, z and core for each of num_cores_per_replica: 2. Give "
            "four numbers for each core, or leave device_assignment out to use the order of the topology.",
        ),
        (
            "num_cores_per_replica: 2",
            "topology is missing; it is required for num_cores_per_replica: 2, because the number of cores does not "
            "tell how they are spread over chips. Add `topology:` with a serialized tensorflow.tpu.TopologyProto that "
            "sets mesh_shape and device_coordinates.",
        ),
    ],
)
def test_xla_sharding_options_must_be_consistent(fields: str, message: str) -> None:
    rejects(f"{ALIAS} xla_sharding_options {{ {fields} }}", f"xla_sharding_options: {message}")


# Files.


def test_options_are_read_from_a_file(tmp_path: Path) -> None:
    path = tmp_path / "options.textproto"
    path.write_text("\ufeff" + CONVERTER_IMAGE, encoding="utf-8")
    assert read_options_file(path) == read_options_file(str(path)) == parse_options(CONVERTER_IMAGE)


def test_a_mistake_in_a_file_names_the_file(tmp_path: Path) -> None:
    path = tmp_path / "options.textproto"
    path.write_text("\ntpu_function {}")
    with pytest.raises(OptionsError, match=r'line 2, column 1 of the converter options file ".*options.textproto";'):
        read_options_file(path)


def test_a_missing_file_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(OptionsError, match=r'Cannot read the converter options file ".*nowhere": No such file.*Give'):
        read_options_file(tmp_path / "nowhere")
    with pytest.raises(OptionsError, match=r"Cannot read the converter options file .*: Is a directory"):
        read_options_file(tmp_path)


def test_a_file_that_is_not_utf_8_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "options.textproto"
    path.write_bytes(b'tpu_functions { function_alias: "\xff" }')
    with pytest.raises(OptionsError, match=r"is not UTF-8 text: invalid byte 0xff at offset 33\. Save it as UTF-8\."):
        read_options_file(path)


# What holds for any text.

_NAMES = """
    tpu_functions function_alias jit_compile_functions batch_options max_batch_size allowed_batch_sizes experimental
    signature_name bfloat16_optimization ENABLED external_feature_configs quantization_options representative_datasets
    key value tags true inf
"""
_PUNCTUATION = """{ } [ ] < > : ; , = \\ # " ' "f" 1 -1 0x1f 1.5 \\n"""
_SPACE = [" ", "\n", "\\\n", "\r\n", "\t", "\x00", "\udcff", "ü"]
_WORDS = st.sampled_from([*_NAMES.split(), *_PUNCTUATION.split(), *_SPACE])


@settings(max_examples=300)
@given(st.lists(st.tuples(_WORDS, st.sampled_from(["", " "])), max_size=25))
def test_any_text_is_either_read_or_refused(words: list[tuple[str, str]]) -> None:
    text = "".join(word + space for word, space in words)
    try:
        options = parse_options(text)
    except OptionsError as error:
        assert str(error)
    else:
        assert parse_options(text) == options


def test_reading_options_does_not_import_tensorflow() -> None:
    program = f"""
import sys
from converter.options.parse import parse_options
parse_options({QUANTIZATION!r})
assert "tensorflow" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", program], check=True, cwd=Path(__file__).parents[2])


def test_quantization_options_are_those_of_tensorflow() -> None:
    from google.protobuf.descriptor import Descriptor
    from tensorflow.compiler.mlir.quantization.tensorflow import quantization_options_pb2 as theirs

    def shape(message: Descriptor) -> dict[str, object]:
        return {
            field.name: (
                field.number,
                field.type,
                field.has_presence,
                field.containing_oneof.name if field.containing_oneof else "",
                {value.name: value.number for value in field.enum_type.values} if field.enum_type else {},
                shape(field.message_type) if field.message_type else {},
            )
            for field in message.fields
        }

    ours = quantization_options_pb2.QuantizationOptions
    assert shape(ours.DESCRIPTOR) == shape(theirs.QuantizationOptions.DESCRIPTOR)

    given_text = parse_options(
        """external_feature_configs { quantization_options {
            op_set: XLA
            quantization_method { preset_method: METHOD_STATIC_RANGE_INT8 }
            unit_wise_quantization_specs {
              unit { op_type: "MatMul" } quantization_method { preset_method: METHOD_NO_QUANTIZE }
            }
            min_num_elements_for_weights: -1
        } }"""
    )
    assert given_text.quantization is not None
    read = theirs.QuantizationOptions.FromString(given_text.quantization)
    assert read.op_set == theirs.XLA
    assert read.unit_wise_quantization_specs[0].unit[0].op_type == "MatMul"
    assert read.min_num_elements_for_weights == -1
