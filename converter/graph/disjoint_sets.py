"""Disjoint sets of hashable things."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Generic, TypeVar

Item = TypeVar("Item", bound=Hashable)


class Classes(Generic[Item]):
    """Disjoint sets of hashable things, made by joining pairs."""

    def __init__(self) -> None:
        self._parent: dict[Item, Item] = {}

    def root(self, item: Item) -> Item:
        """The same thing for all members of a class."""
        path = []
        parent = self._parent.setdefault(item, item)
        while parent != item:
            path.append(item)
            item, parent = parent, self._parent[parent]
        for each in path:
            self._parent[each] = item
        return item

    def join(self, a: Item, b: Item) -> None:
        self._parent[self.root(b)] = self.root(a)
