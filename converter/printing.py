"""How results are laid out for people: the same words on a terminal and in a pipe, and no word is torn apart.

Each result that is printed has `__rich__`, for a terminal of any width and with colours, and `text(width)`, without.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from dataclasses import dataclass

from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderableType
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

WIDTH = 80
"""Columns of a text that is not for a terminal."""
_WORD = re.compile(r"(\s*)(\S+)")
_PIECE = re.compile(r"[^/_]*[/_]+|[^/_]+")


@dataclass(frozen=True)
class Folded:
    """A paragraph that takes as many lines as it needs, those after the first indented by `indent` columns."""

    content: str
    indent: int = 0
    style: str = ""

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Text]:
        for line in fold(self.content, options.max_width, self.indent):
            yield Text(line, self.style, no_wrap=True)

    def __rich_measure__(self, console: Console, options: ConsoleOptions) -> Measurement:
        return Measurement(1, max(1, cell_len(self.content)))


@dataclass(frozen=True)
class Paragraphs:
    """Lines for people, each folded to the width."""

    lines: tuple[str, ...]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Folded]:
        yield from (Folded(line, indent=4) for line in self.lines)

    def text(self, width: int = WIDTH) -> str:
        return plain(self, width)


def fold(text: str, width: int, indent: int = 0) -> list[str]:
    """`text` in lines of at most `width` columns, those after the first indented.

    A line ends between words. Only a word that no line could hold is broken: behind a / or _ if it has one.
    """
    lines, line = [], ""
    room = max(1, width - indent)
    for gap, word in _WORD.findall(text):
        for number, piece in enumerate([word] if cell_len(word) <= room else _pieces(word, room)):
            added = piece if number else gap + piece
            if line.strip() and cell_len(line + added) > width:
                lines.append(line)
                line = " " * indent + piece
            else:
                line += added
    return [*lines, line]


def _pieces(word: str, room: int) -> list[str]:
    return [piece[i : i + room] for piece in _PIECE.findall(word) for i in range(0, len(piece), room)]


def table(*columns: tuple[str, int]) -> Table:
    """A table without lines: the name of each column and its least width; the last takes what is left."""
    made = Table(box=None, show_edge=False, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    *narrow, (last, _) = columns
    for name, width in narrow:
        made.add_column(name, min_width=width, no_wrap=True)
    made.add_column(last)
    return made


def plain(shown: RenderableType, width: int) -> str:
    """What a terminal of `width` columns would show, without colours and without blanks at the ends of lines."""
    console = Console(file=io.StringIO(), width=width, color_system=None, force_terminal=False)
    with console.capture() as captured:
        console.print(shown)
    return "\n".join(line.rstrip() for line in captured.get().splitlines())
