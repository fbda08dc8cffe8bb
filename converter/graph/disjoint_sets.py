"""Disjoint sets of hashable things."""

from __future__ import annotations

from collections.abc import Hashable


class Classes:
    """Disjoint sets of hashable things, made by joining pairs."""

    def __init__(self) -> None:
        self._parent: dict[Hashable, Hashable] = {}

    def root(self, item: Hashable) -> Hashable:
        """The same thing for all members of a class."""
        path = []
        parent = self._parent.setdefault(item, item)
        while parent != item:
            path.append(item)
            item, parent = parent, self._parent[parent]
        for each in path:
            self._parent[each] = item
        return item

    def join(self, a: Hashable, b: Hashable) -> None:
        self._parent[self.root(b)] = self.root(a)
