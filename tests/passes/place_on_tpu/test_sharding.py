"""The runtime's constraints on xla_sharding_options."""

from collections.abc import Sequence

import pytest
from tensorflow.core.protobuf.tpu import topology_pb2

from converter.errors import OptionsError
from converter.options.slices import XlaShardingOptions
from converter.passes.place_on_tpu.sharding import check_sharding

FIRST, SECOND = (0, 0, 0, 0), (0, 1, 0, 0)


def topology(mesh_shape: Sequence[int] = (1, 2, 1, 1), devices: Sequence[int] = (*FIRST, *SECOND)) -> bytes:
    return bytes(topology_pb2.TopologyProto(mesh_shape=mesh_shape, device_coordinates=devices).SerializeToString())


@pytest.mark.parametrize(
    "options",
    [
        XlaShardingOptions(1),
        XlaShardingOptions(1, FIRST),
        XlaShardingOptions(1, SECOND, topology()),
        XlaShardingOptions(2, (), topology()),
        XlaShardingOptions(2, (*SECOND, *FIRST), topology()),
        XlaShardingOptions(2, (0, 0, 0, 0, 0, 0, 0, 1), topology((1, 1, 1, 2), (0, 0, 0, 0, 0, 0, 0, 1))),
    ],
)
def test_what_the_runtime_takes(options: XlaShardingOptions) -> None:
    check_sharding(options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            XlaShardingOptions(2, (), b"\xff\xff\xff"),
            r"^xla_sharding_options\.topology \(3 bytes\) is not a serialized tensorflow\.tpu\.TopologyProto\. Give",
        ),
        (
            XlaShardingOptions(2, (), topology(())),
            r"^The mesh_shape of xla_sharding_options\.topology is \[\]; expected 4 positive sizes \[x, y, z, cores\]",
        ),
        (XlaShardingOptions(2, (), topology((2, 1, 1))), r"mesh_shape of .* is \[2, 1, 1\]; expected 4 positive sizes"),
        (XlaShardingOptions(2, (), topology((1, 2, 0, 1))), r"mesh_shape of .* is \[1, 2, 0, 1\]; expected 4 positive"),
        (
            XlaShardingOptions(2, (), topology(devices=())),
            r"^xla_sharding_options\.topology has no device_coordinates;",
        ),
        (
            XlaShardingOptions(2, (), topology(devices=(*FIRST, 0, 1))),
            r"^The device_coordinates of .* have 6 numbers; expected a multiple of 4 \[x, y, z, core\]\.$",
        ),
        (
            XlaShardingOptions(2, (), topology(devices=(*FIRST, 0, 2, 0, 0))),
            r"^The device_coordinates .* name \[0, 2, 0, 0\], which lies outside the mesh \[1, 2, 1, 1\]; each",
        ),
        (
            XlaShardingOptions(2, (), topology(devices=(*FIRST, 0, -1, 0, 0))),
            r"^The device_coordinates .* name \[0, -1, 0, 0\], which lies outside the mesh",
        ),
        (
            XlaShardingOptions(2, (), topology(devices=(*SECOND, *SECOND))),
            r"^The device_coordinates .* name the core \[0, 1, 0, 0\] twice\.$",
        ),
        (
            XlaShardingOptions(2, (), topology(devices=(*SECOND, *FIRST, *SECOND))),
            r"^The device_coordinates .* name the core \[0, 1, 0, 0\] twice\.$",
        ),
        (
            XlaShardingOptions(2, (*FIRST, 0, 0, 0, 1), topology()),
            r"^The device_assignment .* name \[0, 0, 0, 1\], which lies outside the mesh \[1, 2, 1, 1\]; each",
        ),
        (
            XlaShardingOptions(2, (*FIRST, *FIRST), topology()),
            r"^The device_assignment .* name the core \[0, 0, 0, 0\] twice\.$",
        ),
        (
            XlaShardingOptions(2, (), topology(devices=FIRST)),
            r"^xla_sharding_options\.topology has 1 cores, expected at least num_cores_per_replica: 2\.$",
        ),
    ],
)
def test_what_it_would_refuse(options: XlaShardingOptions, message: str) -> None:
    with pytest.raises(OptionsError, match=message):
        check_sharding(options)
