"""What the tests of options share."""

import re

import pytest

from converter.errors import OptionsError
from converter.options.parse import parse_options
from converter.options.slices import FunctionKind, FunctionRef

ALIAS = 'tpu_functions { function_alias: "f" }\n'


def alias(name: str) -> FunctionRef:
    return FunctionRef(FunctionKind.FUNCTION_ALIAS, name)


def rejects(text: str, message: str) -> None:
    """`text` is refused with the whole of `message`, a regular expression in which only `.*` is special."""
    pattern = ".*".join(re.escape(part) for part in message.split(".*"))
    with pytest.raises(OptionsError) as caught:
        parse_options(text)
    assert re.fullmatch(pattern, str(caught.value)), str(caught.value)
