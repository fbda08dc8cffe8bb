"""The CPU twin: TPU ops replaced by what computes the same on a CPU."""

from collections.abc import Callable
from pathlib import Path

import pytest

from converter.errors import ConversionError, ModelReadError, OutputError
from converter.graph.invariants import check_structure
from converter.proofs.cpu_twin import make_cpu_twin, write_cpu_twin
from tests.harness import parse_model, render, write_model_text

ON_TPU = """
@F(x: float32, v: resource) -> (y: float32) [stateful] {
  TPUOrdinalSelector = TPUOrdinalSelector()
  call = TPUPartitionedCall(x, v, TPUOrdinalSelector:device_ordinals:0, ^TPUOrdinalSelector)
    {f: @F_on_tpu, Tin: [float32, resource], Tout: [float32], _tpu_convert_name: "F", autotuner_thresh: 3}
  return call:output:0, ^call
}
@F_on_tpu(x: float32, v: resource) -> (y: float32) [stateful] {
  pivot = NoOp() {_pivot_for_cluster: "c"}
  TPUReplicateMetadata = TPUReplicateMetadata(^pivot) {_tpu_replicate: "c", num_replicas: 1, topology: "t"}
  status = TPUCompilationResult(^TPUReplicateMetadata) {_tpu_compilation_status: "c"}
  input0 = TPUReplicatedInput(x) {N: 1, T: float32, index: -1}
  in_id = Identity(input0:output:0, ^TPUReplicateMetadata) {T: float32, _tpu_input_identity: true, _tpu_replicate: "c"}
  body = StatefulPartitionedCall(in_id:output:0, v, ^TPUReplicateMetadata)
    {f: @F_body, Tin: [float32, resource], Tout: [float32], _tpu_replicate: "c"}
  out_id = Identity(body:output:0) {T: float32, _tpu_output_identity: true, _tpu_replicate: "c"}
  output0 = TPUReplicatedOutput(out_id:output:0) {T: float32, num_replicas: 1}
  shard = Identity(output0:outputs:0) {T: float32}
  said = Identity(status:output:0) {T: string}
  return output0:outputs:0, ^shard
}
@F_body(x: float32, v: resource) -> (y: float32) [stateful] {
  r = ReadVariableOp(v) {dtype: float32}
  return r:value:0
}
"""

ON_CPU = """
@F(x: float32, v: resource) -> (y: float32) [stateful] {
  TPUOrdinalSelector = Const() {dtype: int32, value: int32(0)}
  call = StatefulPartitionedCall(x, v, ^TPUOrdinalSelector)
    {f: @F_on_tpu, Tin: [float32, resource], Tout: [float32], _tpu_convert_name: "F"}
  return call:output:0, ^call
}
@F_on_tpu(x: float32, v: resource) -> (y: float32) [stateful] {
  pivot = NoOp()
  TPUReplicateMetadata = NoOp(^pivot)
  status = Const(^TPUReplicateMetadata) {dtype: string, value: string("")}
  input0 = Identity(x) {T: float32}
  in_id = Identity(input0:output:0, ^TPUReplicateMetadata) {T: float32}
  body = StatefulPartitionedCall(in_id:output:0, v, ^TPUReplicateMetadata)
    {f: @F_body, Tin: [float32, resource], Tout: [float32]}
  out_id = Identity(body:output:0) {T: float32}
  output0 = Identity(out_id:output:0) {T: float32}
  shard = Identity(output0:output:0) {T: float32}
  said = Identity(status:output:0) {T: string}
  # What was stateful on the TPU must run, or TensorFlow would not inline the function.
  return output0:output:0, ^shard, ^body
}
@F_body(x: float32, v: resource) -> (y: float32) [stateful] {
  r = ReadVariableOp(v) {dtype: float32}
  return r:value:0
}
"""


def test_every_tpu_op_is_replaced() -> None:
    model = parse_model(ON_TPU)
    assert make_cpu_twin(model)
    assert render(model) == render(parse_model(ON_CPU))
    check_structure(model)


def test_a_twin_and_a_model_without_a_tpu_stay_as_they_are() -> None:
    for text in (ON_CPU, "main { x = Placeholder() {dtype: float32} }"):
        model = parse_model(text)
        before = model.saved_model.SerializeToString(deterministic=True)
        assert not make_cpu_twin(model)
        assert model.saved_model.SerializeToString(deterministic=True) == before


def test_in_the_main_graph_tensors_keep_their_spelling() -> None:
    model = parse_model(
        """
        main {
          x = Placeholder() {dtype: float32}
          o = TPUOrdinalSelector()
          y = TPUPartitionedCall(x, o) {f: @F, Tin: [float32], Tout: [float32]}
          z = Identity(y:0) {T: float32}
        }
        @F(x: float32) -> (y: float32) { return x }
        """
    )
    assert make_cpu_twin(model)
    assert render(model).startswith(
        """\
main {
  x = Placeholder() {dtype: float32}
  o = Const() {dtype: int32, value: int32(0)}
  y = StatefulPartitionedCall(x) {Tin: [float32], Tout: [float32], f: @F}
  z = Identity(y:0) {T: float32}
}
"""
    )


def test_an_ordinal_that_is_also_an_argument_goes_only_once() -> None:
    model = parse_model(
        """
        @F(i: int32) -> (y: int32) {
          call = TPUPartitionedCall(i, i) {f: @G, Tin: [int32], Tout: [int32]}
          return call:output:0
        }
        @G(i: int32) -> (y: int32) { return i }
        """
    )
    make_cpu_twin(model)
    assert list(model.functions["F"].node_def[0].input) == ["i"]
    check_structure(model)


def test_the_ordinal_is_the_last_input_even_if_it_is_the_first_argument_too() -> None:
    model = parse_model(
        """
        @F(i: int32, x: int32) -> (y: int32) {
          call = TPUPartitionedCall(i, x, i, ^other) {f: @G, Tin: [int32, int32], Tout: [int32]}
          other = NoOp()
          return call:output:0
        }
        @G(i: int32, x: int32) -> (y: int32) { return x }
        """
    )
    make_cpu_twin(model)
    assert list(model.functions["F"].node_def[0].input) == ["i", "x", "^other"]


@pytest.mark.parametrize(
    "attr",
    [
        "_tpu_replicate", "_tpu_input_identity", "_tpu_output_identity", "_tpu_compilation_status",
        "_pivot_for_cluster", "_xla_compile_device_type", "_replication_info",
    ],
)  # fmt: skip
def test_a_mark_of_the_tpu_alone_is_dropped_and_is_a_change(attr: str) -> None:
    model = parse_model(f'main {{ x = Placeholder() {{dtype: float32, {attr}: "c", _other: "d"}} }}')
    assert make_cpu_twin(model)
    assert sorted(model.graph_def.node[0].attr) == ["_other", "dtype"]
    assert not make_cpu_twin(model)


def test_a_node_that_must_run_already_is_not_named_twice() -> None:
    text = ON_TPU.replace("return output0:outputs:0, ^shard", "return output0:outputs:0, ^kept=body")
    model = parse_model(text)
    make_cpu_twin(model)
    assert dict(model.functions["F_on_tpu"].control_ret) == {"kept": "body"}
    assert list(model.functions["F_on_tpu"].signature.control_output) == ["kept"]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            "num_replicas: 1}\n  shard",
            "num_replicas: 2}\n  shard",
            r'^The node "output0" \(TPUReplicatedOutput\) in F_on_tpu has 2 replicas, expected 1: a model replicated '
            r"over several TPUs has no CPU twin\.$",
        ),
        (
            "TPUReplicatedInput(x) {N: 1",
            "TPUReplicatedInput(x, x) {N: 2",
            r'^The node "input0" \(TPUReplicatedInput\) in F_on_tpu has 2 replicas',
        ),
    ],
)
def test_several_replicas_have_no_twin(old: str, new: str, message: str) -> None:
    assert old in ON_TPU
    with pytest.raises(ConversionError, match=message):
        make_cpu_twin(parse_model(ON_TPU.replace(old, new)))


def test_a_twin_is_written_where_there_is_room(tmp_path: Path) -> None:
    source = write_model_text(ON_TPU, tmp_path / "converted")
    write_cpu_twin(source, str(tmp_path / "twin"))
    with pytest.raises(OutputError, match="is not empty"):
        write_cpu_twin(source, tmp_path / "twin")
    write_cpu_twin(source, tmp_path / "twin", overwrite=True)
    with pytest.raises(OutputError, match="is the input directory"):
        write_cpu_twin(source, source)
    with pytest.raises(ModelReadError, match="does not exist"):
        write_cpu_twin(tmp_path / "none", tmp_path / "other")


def test_the_twin_of_a_model_without_a_tpu_is_a_copy(testdata: Callable[[str], Path], tmp_path: Path) -> None:
    write_cpu_twin(testdata("toy"), tmp_path / "twin")
    for path in testdata("toy").rglob("*"):
        if path.is_file():
            assert (tmp_path / "twin" / path.relative_to(testdata("toy"))).read_bytes() == path.read_bytes()
