"""Options are read from a file, whose mistakes name it."""

from pathlib import Path

import pytest

from converter.errors import OptionsError
from converter.options.parse import parse_options, read_options_file
from tests.options.manual import CONVERTER_IMAGE


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
