"""How results are laid out: what breaks where, and the same words with colours as without."""

import io

import pytest
from rich.console import Console

from converter.printing import Folded, Paragraphs, fold, plain, table


@pytest.mark.parametrize(
    ("text", "width", "lines"),
    [
        ("", 9, [""]),
        ("one two three", 13, ["one two three"]),
        ("one two three", 12, ["one two", "  three"]),
        ("  one  two", 9, ["  one", "  two"]),
        ("  one  two", 10, ["  one  two"]),
        ("see a/b_cd/ef now", 9, ["see a/b_", "  cd/ef", "  now"]),
        ("say a__b", 6, ["say", "  a__b"]),
        ("abcdefghij", 6, ["abcd", "  efgh", "  ij"]),
        ("\u6f22\u5b57 \u6f22\u5b57", 8, ["\u6f22\u5b57", "  \u6f22\u5b57"]),
    ],
)
def test_a_word_is_broken_only_if_no_line_could_hold_it(text: str, width: int, lines: list[str]) -> None:
    assert fold(text, width, indent=2) == lines


def test_what_is_narrower_than_the_indent_loses_no_letter() -> None:
    assert "".join("".join(fold("ab c", 1, indent=4)).split()) == "abc"


def test_paragraphs_are_folded_one_by_one() -> None:
    told = Paragraphs(("Kept float32: 104 AddV2 (is part of a normalization)", "[done] :smile:"))
    assert told.text(30) == "Kept float32: 104 AddV2 (is\n    part of a normalization)\n[done] :smile:"
    assert told.text() == "\n".join(told.lines)


def test_a_table_gives_its_last_column_what_is_left() -> None:
    made = table(("Cost", 6), ("Name", 0))
    made.add_row("12345678", Folded("alpha beta"))
    made.add_row("1", Folded("[x]"))
    assert plain(made, 16) == "Cost      Name\n12345678  alpha\n          beta\n1         [x]"
    assert plain(made, 80) == "Cost      Name\n12345678  alpha beta\n1         [x]"


def test_only_a_terminal_gets_colours() -> None:
    terminal = io.StringIO()
    Console(file=terminal, force_terminal=True, color_system="standard", width=20).print(Folded("done", style="green"))
    assert terminal.getvalue() == "\x1b[32mdone\x1b[0m\n"
    assert plain(Folded("done", style="green"), 20) == "done"
