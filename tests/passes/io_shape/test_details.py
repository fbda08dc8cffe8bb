"""What the IO-shape pass tells people, and what its JSON has."""

from converter.passes.io_shape.details import CrossingRow, IoShapeDetails

FLAT = CrossingRow("f", "input x", "float32", "[None, 10]", "[None]", 4, 4096, 512)
KEPT = CrossingRow("f", "input y", "float32", "[None, 128]", "[None, 128]", 4, 4096, 4096)
COPIED = CrossingRow("g", "input image", "bfloat16", "[None, 96, 96, 3]", "[None, 96, 288]", 1, 73728, 73728)


def test_people_are_told_of_what_crosses_in_another_shape() -> None:
    assert IoShapeDetails((FLAT, KEPT, COPIED)).lines() == [
        "f: input x float32[None, 10] crosses as [None], 4,096 -> 512 bytes for 4 rows",
        "g: input image bfloat16[None, 96, 96, 3] crosses as [None, 96, 288], copied instead of transposed for 1 row",
    ]


def test_the_json_has_every_tensor_that_crosses() -> None:
    assert IoShapeDetails((KEPT,)).to_json() == {
        "crossing": [
            {
                "tpu_function": "f",
                "tensor": "input y",
                "dtype": "float32",
                "shape": "[None, 128]",
                "crosses_as": "[None, 128]",
                "batch_size": 4,
                "bytes_before": 4096,
                "bytes_after": 4096,
            }
        ]
    }
    assert IoShapeDetails(()).to_json() == {}
