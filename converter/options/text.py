"""Option text -> protocol buffer, with messages that a user can act on.

The text is protocol buffer text format, plus two slips that the converter's manual makes and users copy: backslashes at
the ends of lines, and `=` between a field and its value. Both are replaced character for character, so that the line
and column numbers of messages are those of the text as the user wrote it.
"""

import difflib
import re
from collections.abc import Iterator

from google.protobuf import text_format
from google.protobuf.descriptor import Descriptor, EnumDescriptor
from google.protobuf.message import Message

from converter.errors import OptionsError
from protos import converter_options_pb2 as pb

# The pieces of text that matter here. Strings and comments come first: what looks like a slip inside them is not one.
# A string ends with its line even if its closing quote is missing; text_format then reports that quote.
_PIECE = re.compile(
    r"""
      (?P<string> "(?:\\.|[^"\\\n])*(?:"|\\?) | '(?:\\.|[^'\\\n])*(?:'|\\?) )
    | (?P<comment> \#[^\n]* )
    | (?P<continuation> \\(?=\s|\Z) )
    | \b(?P<field> [A-Za-z_]\w*[ \t]* ) =
    """,
    re.VERBOSE | re.ASCII,
)

# How text_format words the mistakes that are explained better here. Anything else is shown in its own words.
_UNKNOWN_FIELD = re.compile(r'Message type "(?P<type>[^"]+)" has no field named "(?P<name>[^"]+)"')
_UNKNOWN_VALUE = re.compile(r'Enum type "(?P<type>[^"]+)" has no value named (?P<name>\S+)\.')
_GIVEN_TWICE = re.compile(r'Message type "(?P<type>[^"]+)" should not have multiple "(?P<name>[^"]+)" fields')
_ONE_OF = re.compile(
    r'Field "(?P<name>[^"]+)" is specified along with field "(?P<other>[^"]+)", another member of oneof "[^"]+" '
    r'for message type "(?P<type>[^"]+)"'
)
_FIELD_BEFORE = re.compile(r"([A-Za-z_]\w*)[ \t]*[:=][ \t]*\[?$", re.ASCII)
_NEAR_LENGTH = 40

# What to do about text_format's reasons, the first that fits.
_ADVICE = (
    (r"missing ending quote", "Close the string on the line where it starts"),
    (r"Expected string", "Write text between straight double quotes"),
    (r"Couldn't parse string", "Write text that is valid UTF-8"),
    (r"Couldn't parse integer|Value out of range", "Write a whole number, at most 2147483647"),
    (r'Expected "true" or "false"', "Write true or false"),
    (r'^Expected "}"$', "A `{` is never closed: add the missing `}`"),
    (r"^Expected identifier or number, got ['\"]", "Leave out quotes that are not around a value"),
    (r"", "Write each option as `name: value` or `name { ... }`"),
)


def parse_message(text: str, source: str) -> pb.ConverterOptions:
    """Reads `text`; `source` says in messages where it comes from. Values are not looked at, only their types."""
    _check_encoding(text, source)
    message = pb.ConverterOptions()
    try:
        text_format.Parse(without_slips(text), message)
    except text_format.ParseError as error:
        raise OptionsError(_explanation(error, text, source)) from error
    except ValueError as error:
        # text_format lets this one through, without a position: a number for an enum that 32 bits cannot hold.
        raise OptionsError(f"Unknown value in {source}: {error}. Write values by name, such as ENABLED.") from error
    _check_enum_numbers(message)
    return message


def without_slips(text: str) -> str:
    """The same text, as long and with the same lines, in plain text format."""

    def replacement(piece: re.Match[str]) -> str:
        if piece["continuation"]:
            return " "
        return f"{piece['field']}:" if piece["field"] else piece[0]

    return _PIECE.sub(replacement, text)


def _check_encoding(text: str, source: str) -> None:
    """Python hands over command line bytes that are not UTF-8 as lone surrogates, which no message can hold."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        line = text.count("\n", 0, error.start) + 1
        column = error.start - text.rfind("\n", 0, error.start)
        raise OptionsError(
            f"Invalid UTF-8 at line {line}, column {column} of {source}; write that character in UTF-8."
        ) from error


def _explanation(error: text_format.ParseError, text: str, source: str) -> str:
    line, column = error.GetLine() or 1, error.GetColumn() or 1
    lines = text.split("\n")
    content = lines[line - 1] if line <= len(lines) else ""
    place = f"at line {line}, column {column} of {source}"
    problem = str(error)
    if match := _UNKNOWN_FIELD.search(problem):
        return _unknown_field(match["type"], match["name"], place)
    if match := _UNKNOWN_VALUE.search(problem):
        return _unknown_value(match["type"], match["name"], _FIELD_BEFORE.search(content[: column - 1]), place)
    if match := _GIVEN_TWICE.search(problem):
        return f'"{match["name"]}" is given twice {_inside(match["type"])}{place}; {_remedy(match["type"])}.'
    if match := _ONE_OF.search(problem):
        return (
            f'"{match["name"]}" {place} comes after "{match["other"]}" {_inside(match["type"])}which may hold only one '
            f"of the two; {_remedy(match['type'])}."
        )
    return _syntax_error(problem, content, column, place)


def _syntax_error(problem: str, content: str, column: int, place: str) -> str:
    reason = re.sub(r"^\d+:\d+ : ", "", problem)
    # text_format repeats the line, in its changed form, before some of its reasons.
    reason = reason.removeprefix(f"'{without_slips(content)}': ").rstrip(".")
    rest = content[column - 1 :].strip()
    near = f", near `{rest[:_NEAR_LENGTH]}`" if rest else ""
    advice = next(advice for pattern, advice in _ADVICE if re.search(pattern, reason))
    return f"Syntax error {place}{near}: {reason}. {advice}."


def _unknown_field(type_name: str, name: str, place: str) -> str:
    message = pb.DESCRIPTOR.pool.FindMessageTypeByName(type_name)
    known = [field.name for field in message.fields]
    unknown = f'Unknown field "{name}" {_inside(type_name)}{place}'
    homes = [path for path, parent in _messages() if name in parent.fields_by_name]
    if "" in homes:
        return f"{unknown}; write it outside of all braces."
    if homes:
        return f"{unknown}; it belongs inside {_either([f'{home} {{ ... }}' for home in homes])}."
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    return f'{unknown}; did you mean "{near[0]}"?' if near else f"{unknown}; expected {_either(known)}."


def _unknown_value(type_name: str, value: str, field: re.Match[str] | None, place: str) -> str:
    names = [known.name for known in pb.DESCRIPTOR.pool.FindEnumTypeByName(type_name).values]
    near = difflib.get_close_matches(value.upper(), names, n=1)
    guess = f'; did you mean "{near[0]}"?' if near else "."
    of_field = f' of "{field[1]}"' if field else ""
    return f'Unknown value "{value}"{of_field} {place}{guess} The values are {_either(names)}.'


def _check_enum_numbers(message: Message, inside: str = "") -> None:
    """Text format takes any number for an enum, also one that has no name."""
    for field, value in message.ListFields():
        path = f"{inside}.{field.name}" if inside else field.name
        if field.enum_type is not None:
            _check_enum_number(field.enum_type, value, path)
        elif field.message_type is not None and not field.message_type.GetOptions().map_entry:
            for inner in [value] if isinstance(value, Message) else value:
                _check_enum_numbers(inner, path)


def _check_enum_number(enum: EnumDescriptor, number: int, path: str) -> None:
    if number not in enum.values_by_number:
        names = _either([known.name for known in enum.values])
        raise OptionsError(f'Unknown value {number} of "{path}" in the converter options; the values are {names}.')


def _messages() -> Iterator[tuple[str, Descriptor]]:
    """Every message of the options with the path of the field that holds it, the outermost with an empty path."""
    pending = [("", pb.ConverterOptions.DESCRIPTOR)]
    while pending:
        path, message = pending.pop(0)
        yield path, message
        inner = [field for field in message.fields if field.message_type is not None]
        pending += [(f"{path}.{field.name}" if path else field.name, field.message_type) for field in inner]


def _inside(type_name: str) -> str:
    paths = [path for path, message in _messages() if message.full_name == type_name and path]
    return f'inside "{paths[0]}", ' if paths else ""


def _remedy(type_name: str) -> str:
    """What to do with the second value of a field that holds one."""
    if type_name == pb.TpuFunction.DESCRIPTOR.full_name:
        return "write one tpu_functions { ... } entry for each function"
    if type_name == pb.BatchOptions.Experimental.DESCRIPTOR.full_name:
        return "write one batch_options { ... } entry for each component"
    return "leave one of them out"


def _either(names: list[str]) -> str:
    *others, last = names
    return f"{', '.join(others)} or {last}" if others else last
