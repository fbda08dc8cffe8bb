"""The kernels of ops, on the TPU and here."""

from converter.graph.kernels import has_cpu_kernel, takes, tpu_kernels


def test_tpu_kernels_are_those_of_a_real_tpu_build() -> None:
    kernels = tpu_kernels()
    assert len(kernels) == 537
    assert any("bfloat16" in types for kernel in kernels["MatMul"] for types in kernel.values())
    assert "StringLength" not in kernels
    assert "LookupTableFindV2" not in kernels


def test_an_attribute_without_a_constraint_may_be_anything() -> None:
    assert takes([{"T": ["float32"]}], ["T", "Tidx"], "float32")
    assert not takes([{"T": ["float32"]}], ["T"], "bfloat16")
    assert not takes([], ["T"], "float32")


def test_cpu_kernels_are_asked_for_all_attributes() -> None:
    assert has_cpu_kernel("MatMul", ["T"], "float32")
    assert not has_cpu_kernel("MatMul", ["T"], "string")
    assert not has_cpu_kernel("TPUPartitionedCall", [], "float32")
