"""Option text -> options: the manual's own strings, its two slips, and what holds for any text."""

import dataclasses
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from converter.errors import OptionsError
from converter.options.parse import parse_options
from converter.options.slices import BatchOptions, ConverterOptions, FunctionKind, FunctionRef
from converter.options.text import parse_message
from protos import quantization_options_pb2
from tests.options.manual import (
    BATCHING,
    CONCRETE_FUNCTION,
    CONVERTER_IMAGE,
    FUNCTION_BATCHING,
    QUANTIZATION,
    SEVERAL_FUNCTIONS,
    SIGNATURE_BATCHING,
    UPDATED_BATCHING,
    WITHOUT_OPTIMIZATIONS,
)
from tests.options.texts import ALIAS, alias, rejects


def signature(name: str) -> FunctionRef:
    return FunctionRef(FunctionKind.SIGNATURE_NAME, name)


UNSUPPORTED = (
    "external_feature_configs { quantization_options } is not supported yet. Remove it; the other options work without "
    "it."
)
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
        (UPDATED_BATCHING, ConverterOptions(batch_options=(MANUAL_BATCH,), bfloat16=None, io_shape=False)),
        (
            ALIAS + WITHOUT_OPTIMIZATIONS,
            ConverterOptions(tpu_functions=(alias("f"),), bfloat16=None, io_shape=False),
        ),
    ],
    ids=[
        "converter image",
        "several functions",
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


def test_the_manuals_quantization_is_read_and_refused() -> None:
    rejects(QUANTIZATION, UNSUPPORTED)
    (dataset,) = parse_message(QUANTIZATION, "").external_feature_configs.quantization_options.representative_datasets
    assert dataset == "serving_default"
    rejects("external_feature_configs { quantization_options {} }", UNSUPPORTED)
    rejects(QUANTIZATION + "batch_options {}", "batch_options: max_batch_size is missing .*")


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
    assert parse_options(f"{ALIAS} disable_default_optimizations={value}").bfloat16 is None


def test_comments_may_hold_anything() -> None:
    assert parse_options("# it's a = \\\n" + ALIAS + "# \"open { '").tpu_functions == (alias("f"),)


def test_slips_do_not_move_the_position_of_a_mistake() -> None:
    rejects(
        'tpu_functions { \\\n  function_alias="f" \\\n} \\\nxx=1',
        'Unknown field "xx" at line 4, column 1 of the converter options; expected tpu_functions, .*.',
    )


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
parse_options({CONVERTER_IMAGE!r})
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

    text = parse_message(
        """external_feature_configs { quantization_options {
            op_set: XLA
            quantization_method { preset_method: METHOD_STATIC_RANGE_INT8 }
            unit_wise_quantization_specs {
              unit { op_type: "MatMul" } quantization_method { preset_method: METHOD_NO_QUANTIZE }
            }
            min_num_elements_for_weights: -1
        } }""",
        "the text",
    )
    given_bytes = text.external_feature_configs.quantization_options.SerializeToString()
    read = theirs.QuantizationOptions.FromString(given_bytes)
    assert read.op_set == theirs.XLA
    assert read.unit_wise_quantization_specs[0].unit[0].op_type == "MatMul"
    assert read.min_num_elements_for_weights == -1
