"""Every mistake in the text, and in what it asks for, has its message."""

import pytest

from converter.options.parse import parse_options
from tests.options.manual import BATCHING
from tests.options.texts import ALIAS, rejects


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


def test_xla_sharding_options_need_functions_to_split() -> None:
    rejects(
        "batch_options { max_batch_size: 8 } xla_sharding_options { num_cores_per_replica: 1 }",
        "xla_sharding_options say how the functions in tpu_functions are split over cores, but there are no "
        "tpu_functions. Name the functions, or remove xla_sharding_options.",
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
