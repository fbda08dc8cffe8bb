"""Is each row of a batched model's answer its own? Asks for rows alone, in company, in another order and all at once.

A batching op serves the rows of several callers as one batch. That is right only if no row knows which others are
beside it: a mean over the batch, or a matrix of all rows by all rows, answers something else whenever requests meet.
"""

from __future__ import annotations

import threading
import uuid
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import tensorflow as tf

from converter.analysis import tpu
from converter.errors import ConversionError
from converter.graph import calls, outside
from converter.graph.model import Model
from converter.graph.protos import NodeDef
from converter.graph.tensors import Array
from converter.proofs.comparison import described, is_inexact, norm, relative_error
from converter.proofs.running import Answer, Values

MOST_ROWS = 3
# How long the batching ops wait for company: long enough for threads that are started together.
_WAIT_MICROS = 50_000
# A session's first requests wait for it to optimize the graph, each its own time, and so may not meet. Those that do
# not meet prove nothing; where all depends on that, they get one more chance.
_ROUNDS = 2
_BESIDE_A_CALL = ("Identity", "NoOp", "Cast", "Reshape", "Const")
_INFLUENCE = "rows of one batch influence each other, so batching them changes answers"
_OUTSIDE = "rows of one request influence each other, but not inside of what is batched"


@dataclass(frozen=True)
class RowComparison:
    """What became of the rows of one output: the largest error of a row, relative to the larger of the row's own norm
    and that of a typical row; of integers and strings, the share that differs. `detail` says where it was seen."""

    signature: str
    output: str
    error: float
    detail: str
    random: bool = False


@dataclass(frozen=True)
class _Seen:
    error: float
    row: int
    when: str
    detail: str = ""

    def text(self, output: str) -> str:
        return f'row {self.row} of "{output}" differs {self.when}: {self.detail or f"{self.error:.2g} relative error"}'


# --- which rows, and where they are batched ---------------------------------------------------------------------


def batching_ops(model: Model, key: str) -> list[NodeDef]:
    """The batching ops that signature `key` reaches."""
    function = outside.signature_function(model, key)
    if function in model.functions:
        scopes = [model.scope(name) for name in calls.call_graph(model).reachable([str(function)])]
    else:
        scopes = list(model.scopes())
    return [node for scope in scopes for node in scope.nodes if node.op == tpu.BATCH_CALL]


def let_requests_meet(model: Model) -> None:
    """Batching ops wait for company, and share no queue with those of other models in this process."""
    suffix = uuid.uuid4().hex
    for scope in model.scopes():
        for node in (n for n in scope.nodes if n.op == tpu.BATCH_CALL):
            # The adaptive scheduler, which 0 threads mean, does not wait.
            node.attr["num_batch_threads"].i = max(1, node.attr["num_batch_threads"].i)
            node.attr["batch_timeout_micros"].i = _WAIT_MICROS
            node.attr["shared_name"].s += f"/{suffix}".encode()


def is_batched_whole(model: Model, key: str) -> bool:
    """Whether signature `key` is a chain of single calls that ends in a batching op: nothing is computed beside it."""
    name = outside.signature_function(model, key)
    seen: set[str] = set()
    while name in model.functions and name not in seen:
        seen.add(str(name))
        work = [n for n in model.functions[name].node_def if n.op not in _BESIDE_A_CALL]
        if len(work) != 1:
            return False
        if work[0].op == tpu.BATCH_CALL:
            return True
        name = next(iter(calls.called_functions(work[0], model)), None)
    return False


def row_inputs(specs: Mapping[str, tf.TensorSpec]) -> list[str]:
    """Inputs with a free 0th dimension: these hold rows."""
    return [n for n, s in sorted(specs.items()) if s.shape.rank is None or (s.shape.rank and s.shape[0] is None)]


def different_rows(inputs: Mapping[str, Array], names: Sequence[str], count: int) -> list[int]:
    """Up to `count` rows of the inputs `names` of which no two are the same in all of them."""
    found: dict[tuple[bytes, ...], int] = {}
    for row in range(min(len(inputs[name]) for name in names)):
        found.setdefault(tuple(repr(np.asarray(inputs[name][row]).tolist()).encode() for name in names), row)
    return sorted(found.values())[:count]


def take(inputs: Mapping[str, Array], names: Sequence[str], rows: Sequence[int]) -> dict[str, Array]:
    """The request with these rows alone; inputs that are not in `names` stay as they are."""
    return {name: value[list(rows)] if name in names else value for name, value in inputs.items()}


# --- asking -----------------------------------------------------------------------------------------------------


def probe_rows(
    key: str,
    inputs: Mapping[str, Array],
    names: Sequence[str],
    converted: Answer,
    served: Answer,
    *,
    whole: bool,
    tolerance: float,
) -> list[RowComparison]:
    """Asks a batched signature for the same rows in several ways.

    Args:
      inputs: a request of two rows or more that differ, in the inputs `names`.
      converted, served: ask the model, as each of the loaders has it.
      whole: all of the signature is batched, so that rows of one request stand for rows of several.
      tolerance: up to this error, rows are the same.
    """
    count = len(inputs[names[0]])
    requests = [take(inputs, names, [row]) for row in range(count)]
    company = converted(inputs)
    alone = [converted(request) for request in requests]
    order = [*range(1, count), 0]
    in_order = converted(take(inputs, names, order))
    try:
        rounds = _ROUNDS if whole else _ROUNDS + 1
        merged = [_asked_together(ask, requests) for ask in (converted, *[served] * rounds)]
    except ConversionError as error:
        told = f"requests that are served together fail, though each alone does not: {error}"
        return [RowComparison(key, name, float("inf"), told) for name in sorted(company)]
    result = []
    for name in sorted(company):
        inside = list(_of_one_request(name, company, alone, in_order, order))
        between = [
            _row_seen(row, "when requests of several callers are merged", alone[row][name], answer[name], 0.0)
            for answers in merged
            for row, answer in enumerate(answers)
        ]
        worst = max([*inside, *between] if whole else between, key=_error)
        detail = f"{worst.text(name)}; {_INFLUENCE}" if worst.error > tolerance else ""
        if not detail and any(seen.error > tolerance for seen in inside):
            detail = _OUTSIDE
        result.append(RowComparison(key, name, worst.error, detail))
    return result


def _asked_together(ask: Answer, requests: Sequence[Mapping[str, Array]]) -> list[Values]:
    """The answers to all requests when each comes from a thread of its own at the same time."""
    barrier = threading.Barrier(len(requests))

    def one(request: Mapping[str, Array]) -> Values:
        barrier.wait()
        return ask(request)

    with ThreadPoolExecutor(len(requests)) as pool:
        return list(pool.map(one, requests))


def _of_one_request(
    name: str, company: Values, alone: Sequence[Values], in_order: Values, order: Sequence[int]
) -> Iterator[_Seen]:
    """How the rows of an output in company differ from those alone and in another order, if it has such rows."""
    together, ordered = company[name], in_order[name]
    count = len(alone)
    size = alone[0][name].shape[0] if alone[0][name].ndim else 0
    if not together.ndim or size == 0 or together.shape[0] != count * size:
        return
    typical = norm(together) / count**0.5 if is_inexact(together) else 0.0
    for row in range(count):
        rows = together[row * size : (row + 1) * size]
        yield _row_seen(row, "when served alone", rows, alone[row][name], typical)
        at = order.index(row) * size
        yield _row_seen(row, "in another order", rows, ordered[at : at + size], typical)


def _row_seen(row: int, when: str, expected: Array, found: Array, typical: float) -> _Seen:
    if expected.shape != found.shape:
        return _Seen(float("inf"), row, when, f"{described(found)} instead of {described(expected)}")
    return _Seen(relative_error(expected, found, typical), row, when)


def _error(seen: _Seen) -> float:
    return seen.error
