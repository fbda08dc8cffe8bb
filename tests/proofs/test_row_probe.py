"""Which rows are asked for, and what is made of the answers; the models here are Python functions."""

import threading
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from converter.errors import ConversionError
from converter.proofs.row_probe import (
    RowComparison,
    batching_ops,
    different_rows,
    is_batched_whole,
    let_requests_meet,
    probe_rows,
    row_inputs,
    take,
)
from converter.proofs.running import Answer
from tests.harness import parse_model

X = np.float32([[1, 2], [3, 5], [8, 13]])
HOW: dict[str, Any] = {"whole": True, "tolerance": 1e-5}
Body = Callable[[np.ndarray], np.ndarray]


def alone(body: Body) -> Answer:
    return lambda inputs: {"y": body(inputs["x"])}


class Meeting:
    """Serves three requests as one batch if they come at once, and then another each time."""

    def __init__(self, body: Body) -> None:
        self.body = body
        self.barrier = threading.Barrier(3)
        self.batch: dict[int, np.ndarray] = {}

    def __call__(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        me = threading.get_ident()
        self.batch[me] = inputs["x"]
        self.barrier.wait(10)
        order = sorted(self.batch)
        answer = self.body(np.concatenate([self.batch[i] for i in order]))
        self.barrier.wait(10)
        self.batch.clear()
        self.barrier.wait(10)
        at = order.index(me)
        return {"y": answer[at : at + 1]}


def probe(inside: Body, between: Body | None = None, whole: bool = True, tolerance: float = 1e-5) -> RowComparison:
    served = alone(inside) if between is None else Meeting(between)
    (found,) = probe_rows("s", {"x": X}, ["x"], alone(inside), served, whole=whole, tolerance=tolerance)
    return found


def test_rows_of_their_own() -> None:
    assert probe(lambda x: x * 2, lambda x: x * 2) == RowComparison("s", "y", 0.0, "")


def test_the_row_that_differs_most_alone_is_told() -> None:
    found = probe(lambda x: x + np.float32([0, 0.01, 4][: len(x)])[:, None])
    assert found.detail == (
        'row 0 of "y" differs in another order: 0.45 relative error; rows of one batch influence each other, so '
        "batching them changes answers"
    )
    assert found.error == pytest.approx(0.45, abs=0.01)


def test_of_integers_the_share_that_differs_counts() -> None:
    assert probe(lambda x: np.int64(x) + np.int64(len(x) == 3) * np.int64([0, 1])).error == 0.5
    assert probe(lambda x: np.int64(x) + len(x)).error == 1.0


def test_a_row_that_is_nearly_zero_is_measured_by_a_typical_row() -> None:
    # The 0th row is as good as zero: 1e-9 against its own norm would be 0.1.
    tiny = X * np.float32([[1e-9], [1], [1]])
    (found,) = probe_rows("s", {"x": tiny}, ["x"], *[alone(lambda x: x + np.float32(1e-9) * len(x))] * 2, **HOW)
    assert 0 < found.error < 1e-5


def test_whatever_is_beside_a_row_may_not_change_its_shape() -> None:
    found = probe(lambda x: x @ x.T)
    assert found.error == np.inf
    assert 'row 0 of "y" differs when served alone: float32[1, 1] instead of float32[1, 3];' in found.detail


def test_rows_may_be_several_of_an_output_and_an_output_may_have_none() -> None:
    assert probe(lambda x: np.repeat(x, 4, 0)) == RowComparison("s", "y", 0.0, "")
    assert probe(lambda x: x.reshape(-1)) == RowComparison("s", "y", 0.0, "")
    assert probe(lambda x: np.float32(7)) == RowComparison("s", "y", 0.0, "")
    assert probe(lambda x: np.zeros([0, 2], np.float32)) == RowComparison("s", "y", 0.0, "")
    assert probe(lambda x: x.sum(0)) == RowComparison("s", "y", 0.0, "")
    assert probe(lambda x: np.repeat(x, 2, 0) + len(x)).error > 0.1


def test_where_more_than_what_is_batched_sees_the_rows_only_requests_that_meet_count() -> None:
    mixing = lambda x: x - x.mean(0)  # noqa: E731
    assert probe(mixing, whole=True).error > 0.1
    outside = probe(mixing, whole=False)
    assert outside.error == 0.0
    assert outside.detail == "rows of one request influence each other, but not inside of what is batched"
    inside = probe(mixing, mixing, whole=False)
    assert inside.error > 0.1 and "rows of one batch influence each other" in inside.detail
    apart = probe(lambda x: x, lambda x: x + len(x), whole=False)
    assert 'of "y" differs when requests of several callers are merged:' in apart.detail


def test_requests_that_meet_get_several_chances_where_all_depends_on_it() -> None:
    asked = []

    def late(inputs: Mapping[str, Any]) -> dict[str, Any]:
        asked.append(1)
        return {"y": inputs["x"] + (100 if len(asked) > 6 else 0)}

    def mixing(inputs: Mapping[str, Any]) -> dict[str, Any]:
        return {"y": inputs["x"]}

    (found,) = probe_rows("s", {"x": X}, ["x"], mixing, late, whole=False, tolerance=1e-5)
    assert found.error > 1 and len(asked) == 9


def test_requests_that_only_fail_together_are_told() -> None:
    def refusing(inputs: Mapping[str, Any]) -> dict[str, Any]:
        raise ConversionError("too many")

    (found,) = probe_rows("s", {"x": X}, ["x"], alone(np.negative), refusing, whole=True, tolerance=1e-5)
    assert found.error == np.inf
    assert found.detail == "requests that are served together fail, though each alone does not: too many"


def test_the_tolerance_decides() -> None:
    slightly = lambda x: x * np.float32(1 + 1e-3 * len(x))  # noqa: E731
    assert probe(slightly, tolerance=1e-5).detail
    assert not probe(slightly, tolerance=1e-2).detail


# --- which rows -------------------------------------------------------------------------------------------------


def test_inputs_with_a_free_0th_dimension_hold_rows() -> None:
    shapes: dict[str, Any] = {"free": [None, 4], "any": None, "fixed": [3, None], "scalar": []}
    assert row_inputs({n: tf.TensorSpec(s, tf.float32) for n, s in shapes.items()}) == ["any", "free"]


def test_rows_that_differ_in_some_input_are_taken_with_what_belongs_to_them() -> None:
    inputs = {"a": np.array([1, 1, 1, 2, 3]), "b": np.array([b"x", b"x", b"y", b"x", b"x"], object), "t": np.float32(5)}
    rows = different_rows(inputs, ["a", "b"], 3)
    assert rows == [0, 2, 3]
    taken = take(inputs, ["a", "b"], rows)
    assert taken["a"].tolist() == [1, 1, 2] and taken["b"].tolist() == [b"x", b"y", b"x"] and taken["t"] == 5
    assert different_rows({"a": np.array([1, 1])}, ["a"], 3) == [0]
    assert different_rows({"a": np.arange(2), "b": np.arange(9)}, ["a", "b"], 3) == [0, 1]


BATCHED = """
signature "s" x=x:0 -> y=y:0
signature "t" x=x:0 -> z=z:0
object signatures.s = bare @S
object signatures.t = bare @T
main {
  x = Placeholder() {dtype: float32}
  y = PartitionedCall(x) {f: @S, Tin: [float32], Tout: [float32]}
  z = PartitionedCall(x) {f: @T, Tin: [float32], Tout: [float32]}
}
@S(x: float32) -> (y: float32) {
  i = Identity(x) {T: float32}
  c = PartitionedCall(i:output:0) {f: @F, Tin: [float32], Tout: [float32]}; return c:output:0
}
@T(x: float32) -> (y: float32) {
  n = Neg(x) {T: float32}
  c = PartitionedCall(n:y:0) {f: @F, Tin: [float32], Tout: [float32]}; return c:output:0
}
@F(x: float32) -> (y: float32) {
  b = BatchFunction(x) {f: @G, Tin: [float32], Tcaptured: [], Tout: [float32], num_batch_threads: 0,
    max_batch_size: 4, batch_timeout_micros: 9, shared_name: "q"}
  return b:out_tensors:0
}
@G(x: float32) -> (y: float32) { n = Neg(x) {T: float32}; return n:y:0 }
""".replace(",\n ", ",")


def test_the_batching_ops_of_a_signature() -> None:
    model = parse_model(BATCHED)
    assert [op.name for op in batching_ops(model, "s")] == ["b"]
    assert is_batched_whole(model, "s") and not is_batched_whole(model, "t")
    without = parse_model(BATCHED.replace("{f: @F,", "{f: @G,"))
    assert batching_ops(without, "s") == []
    assert not is_batched_whole(without, "s")
    ring = parse_model(BATCHED.replace("i:output:0) {f: @F", "i:output:0) {f: @S"))
    assert not is_batched_whole(ring, "s")
    main = "main { x = Placeholder() {dtype: float32}; b = BatchFunction(x) }"
    of_nodes = parse_model(f'signature "n" x=x:0 -> y=b:0 {main}')
    assert [op.name for op in batching_ops(of_nodes, "n")] == ["b"]


def test_batching_ops_wait_for_company_and_share_no_queue_with_another_model() -> None:
    queues = []
    for threads, expected in ((0, 1), (3, 3)):
        model = parse_model(BATCHED.replace("num_batch_threads: 0", f"num_batch_threads: {threads}"))
        let_requests_meet(model)
        (op,) = batching_ops(model, "s")
        assert op.attr["num_batch_threads"].i == expected
        assert op.attr["batch_timeout_micros"].i == 50_000
        assert op.attr["max_batch_size"].i == 4
        queues.append(op.attr["shared_name"].s)
    assert len(set(queues)) == 2 and all(q.startswith(b"q/") for q in queues)
