"""The attributes of a BatchFunction that options decide: read off a node, made of options, and written."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeAlias

from converter.graph.nodes import int_list_attr, plain_attr
from converter.graph.protos import NodeDef
from converter.options.slices import BatchOptions

Value: TypeAlias = int | bool | tuple[int, ...]
# The op has no default for these, so they are always written.
_REQUIRED = ("num_batch_threads", "max_batch_size", "batch_timeout_micros")


@dataclass(frozen=True)
class Attributes:
    """How a batching op batches; the defaults are those of the op, and of the reference for what the op requires."""

    num_batch_threads: int = 0
    batch_timeout_micros: int = 0
    max_enqueued_batches: int = 10
    allowed_batch_sizes: tuple[int, ...] = ()
    enable_large_batch_splitting: bool = False
    max_batch_size: int = 0

    @property
    def largest_batch(self) -> int:
        """Rows of the largest batch that is run."""
        return self.allowed_batch_sizes[-1] if self.allowed_batch_sizes else self.max_batch_size

    def values(self) -> dict[str, Value]:
        """By name, in the order of the fields."""
        return {each.name: getattr(self, each.name) for each in dataclasses.fields(self)}

    def changed(self, after: Attributes) -> dict[str, Value]:
        """What of `after` is another value here."""
        before = self.values()
        return {key: value for key, value in after.values().items() if value != before[key]}

    def with_options(self, options: BatchOptions) -> Attributes:
        """These attributes where options leave them unset, and else what the options say."""
        return Attributes(
            num_batch_threads=_given(options.num_batch_threads, self.num_batch_threads),
            batch_timeout_micros=_given(options.batch_timeout_micros, self.batch_timeout_micros),
            max_enqueued_batches=_given(options.max_enqueued_batches, self.max_enqueued_batches),
            allowed_batch_sizes=options.allowed_batch_sizes or self.allowed_batch_sizes,
            enable_large_batch_splitting=options.enable_large_batch_splitting,
            max_batch_size=options.max_batch_size,
        )


_DEFAULT = Attributes()


def _given(option: int | None, unset: int) -> int:
    return unset if option is None else option


def read_attributes(node: NodeDef) -> Attributes:
    """Of a batching op; the defaults where the node has none written."""
    sizes, splits = "allowed_batch_sizes", "enable_large_batch_splitting"
    return Attributes(
        num_batch_threads=_number(node, "num_batch_threads", _DEFAULT.num_batch_threads),
        batch_timeout_micros=_number(node, "batch_timeout_micros", _DEFAULT.batch_timeout_micros),
        max_enqueued_batches=_number(node, "max_enqueued_batches", _DEFAULT.max_enqueued_batches),
        allowed_batch_sizes=tuple(node.attr[sizes].list.i) if sizes in node.attr else _DEFAULT.allowed_batch_sizes,
        enable_large_batch_splitting=splits in node.attr and bool(node.attr[splits].b),
        max_batch_size=_number(node, "max_batch_size", _DEFAULT.max_batch_size),
    )


def _number(node: NodeDef, key: str, unset: int) -> int:
    return int(node.attr[key].i) if key in node.attr else unset


def write_attributes(node: NodeDef, values: Mapping[str, Value]) -> None:
    """Older runtimes reject attributes that they do not know, so what equals a default is not written."""
    default = _DEFAULT.values()
    for key, value in values.items():
        if key not in _REQUIRED and value == default[key]:
            node.attr.pop(key, None)
        else:
            attr = int_list_attr(value) if isinstance(value, tuple) else plain_attr(value)
            node.attr[key].CopyFrom(attr)


def changes_text(before: Attributes, after: Attributes) -> list[str]:
    """What changes, in words."""
    was = before.values()
    return [f"{key} {_text(was[key])} -> {_text(value)}" for key, value in before.changed(after).items()]


def _text(value: Value) -> str:
    return str(list(value)) if isinstance(value, tuple) else str(value)
