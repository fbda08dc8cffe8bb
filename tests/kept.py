"""What a model keeps is what would be made of it now: checked at every look-up inside of `look_ups_checked`."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

from converter.graph.model import Model
from converter.graph.scope_index import ScopeIndex

_kept = Model.kept


@contextmanager
def look_ups_checked() -> Iterator[None]:
    """Inside, a look-up fails that gives anything else than a fresh one would."""
    with patch.object(Model, "kept", _checked):
        yield


def _checked(model: Model, key: Hashable, make: Callable[[], Any]) -> Any:
    found = _kept(model, key, make)
    assert _content(found) == _content(make()), f"the kept {key} is out of date"
    return found


def _content(kept: Any) -> Any:
    if not isinstance(kept, ScopeIndex):
        return kept
    return kept.nodes, kept.arguments, kept._inputs, kept._users
