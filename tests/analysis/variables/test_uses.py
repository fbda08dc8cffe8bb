"""Which nodes read a variable's values, which write them, and where they say of which type it is."""

import pytest

from converter.analysis.variables.uses import UseKind, use_kind, value_attr
from tests.harness import parse_model


@pytest.mark.parametrize(
    ("node", "attr", "kind"),
    [
        ("ReadVariableOp(v) {dtype: float32}", "dtype", UseKind.READ),
        ("ResourceGather(v, i) {dtype: float32, Tindices: int32}", "dtype", UseKind.READ),
        ("ResourceGatherNd(v, i) {dtype: float32, Tindices: int32}", "dtype", UseKind.READ),
        ("ReadVariableXlaSplitND(v) {T: float32, N: 1, num_splits: [1]}", "T", UseKind.READ),
        ("AssignVariableOp(v, x) {dtype: float32}", "dtype", UseKind.WRITE),
        ("AssignAddVariableOp(v, x) {dtype: float32}", "dtype", UseKind.WRITE),
        ("AssignSubVariableOp(v, x) {dtype: float32}", "dtype", UseKind.WRITE),
        ("AssignVariableXlaConcatND(v, x) {T: float32, N: 1, num_concats: [1]}", "T", UseKind.WRITE),
        ("ResourceStridedSliceAssign(v, i, i, i, x) {T: float32, Index: int32}", "T", UseKind.WRITE),
        ("ResourceScatterAdd(v, i, x) {dtype: float32, Tindices: int32}", "dtype", UseKind.WRITE),
        ("ResourceApplyGradientDescent(v, x, x) {T: float32}", "T", UseKind.WRITE),
        ("ResourceSparseApplyAdagrad(v, v, x, x, i) {T: float32, Tindices: int32}", "T", UseKind.WRITE),
        ("VariableShape(v) {out_type: int32}", None, UseKind.INDIFFERENT),
        ("MysteryOp(v)", None, UseKind.OPAQUE),
    ],
)
def test_each_op_on_a_variable_is_known_for_what_it_does(node: str, attr: str | None, kind: UseKind) -> None:
    model = parse_model(f"main {{ n = {node} }}")
    (found,) = model.graph_def.node
    assert (value_attr(found), use_kind(found, model)) == (attr, kind)
