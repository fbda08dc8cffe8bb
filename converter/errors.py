"""Exceptions that users see.

An error is one paragraph: what failed, on which named thing, found versus expected, what to do.
User errors (`ConversionError` and its subclasses) and our own bugs (`InternalError`) are different
types: the command line prints the first kind as it is and asks for a report of the second.
"""

import difflib
from collections.abc import Iterable, Sequence


class ConversionError(Exception):
    """The conversion cannot be done with this model and these options; the message says why. Exit status 1."""


class OptionsError(ConversionError):
    """The converter options are wrong, whatever the model is. Exit status 2."""


class ModelReadError(ConversionError):
    """The input directory does not hold a SavedModel that can be converted."""


class OutputError(ConversionError):
    """The output directory cannot be written."""


class InternalError(Exception):
    """A defect of tpu-convert itself, such as a pass that left the model broken."""


def nearest(name: str, existing: Iterable[str], limit: int = 10) -> str:
    """The existing names as a readable list, those nearest to `name` first; 'none' if there are none."""
    names = sorted(set(existing))
    if not names:
        return "none"
    ratio = {n: difflib.SequenceMatcher(None, name.lower(), n.lower()).ratio() for n in names}
    names.sort(key=lambda n: (-ratio[n], n))
    return listed([f'"{n}"' for n in names], limit)


def listed(names: Sequence[str], limit: int = 5) -> str:
    """The first few names: 'a, b, c, d, e and 2 more'."""
    shown = ", ".join(names[:limit])
    return shown if len(names) <= limit else f"{shown} and {len(names) - limit} more"
