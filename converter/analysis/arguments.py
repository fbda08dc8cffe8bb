"""What is known of a tensor that a call passes: its shape, what is behind a handle, or a small value."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from converter.graph import shapes
from converter.graph.protos import DataType
from converter.graph.shapes import Shape


@dataclass(frozen=True)
class Handle:
    """What is known behind a resource or variant: type and shape of the variable, or of the elements of the list.

    `length` is that of a list, if it is known.
    """

    dtype: DataType
    shape: Shape
    length: int | None = None


@dataclass(frozen=True)
class Known:
    """A small tensor of integers that shapes alone decide, such as a batch size that is passed to a function."""

    dtype: DataType
    shape: tuple[int, ...]
    values: tuple[int, ...]


Argument = Shape | Handle | Known


def shape_of(argument: Argument) -> Shape:
    """A handle itself is a scalar."""
    if isinstance(argument, Handle):
        return ()
    return argument.shape if isinstance(argument, Known) else argument


def join(found: Sequence[Argument]) -> Argument:
    """What these have in common."""
    if len(set(found)) == 1:
        return found[0]
    handles = [each for each in found if isinstance(each, Handle)]
    if len(handles) == len(found) and len({each.dtype for each in handles}) == 1:
        lengths = {each.length for each in handles}
        length = lengths.pop() if len(lengths) == 1 else None
        return Handle(handles[0].dtype, shapes.join([each.shape for each in handles]), length)
    return shapes.join([shape_of(each) for each in found])


def filled(before: Argument, after: Argument) -> Argument:
    """A variable of a loop after its first turn."""
    if isinstance(before, Handle) and isinstance(after, Handle) and shapes.fits(after.shape, before.shape):
        return replace(after, length=after.length if after.length == before.length else None)
    return join((before, after))
