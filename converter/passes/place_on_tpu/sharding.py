"""The runtime's constraints on xla_sharding_options."""

from __future__ import annotations

import itertools

from google.protobuf.message import DecodeError

from converter.errors import OptionsError
from converter.graph.protos import TopologyProto
from converter.options.slices import XlaShardingOptions

_COORDINATES = 4  # x, y, z, core


def check_sharding(options: XlaShardingOptions) -> None:
    """Checks the topology and device assignment against each other.

    Raises:
      OptionsError: the topology is no TopologyProto, lacks fields, or a coordinate lies outside the mesh.
    """
    if not options.topology:
        return
    topology = _parse(options.topology)
    mesh = list(topology.mesh_shape)
    if len(mesh) != _COORDINATES or any(size <= 0 for size in mesh):
        raise OptionsError(
            f"The mesh_shape of xla_sharding_options.topology is {mesh}; expected {_COORDINATES} positive sizes "
            "[x, y, z, cores], for example [1, 2, 1, 1]."
        )
    devices = _coordinates(list(topology.device_coordinates), "device_coordinates of xla_sharding_options.topology")
    if not devices:
        raise OptionsError(
            "xla_sharding_options.topology has no device_coordinates; expected [x, y, z, core] of every core in a row."
        )
    assigned = _coordinates(list(options.device_assignment), "device_assignment of xla_sharding_options")
    for what, coordinates in (("device_coordinates", devices), ("device_assignment", assigned)):
        for device in coordinates:
            if any(not 0 <= c < size for c, size in zip(device, mesh, strict=True)):
                raise OptionsError(
                    f"The {what} of xla_sharding_options name {list(device)}, which lies outside the mesh {mesh}; "
                    "each coordinate must be at least 0 and below the mesh's size."
                )
        if len(set(coordinates)) != len(coordinates):
            twice = next(d for d, n in itertools.groupby(sorted(coordinates)) if len(list(n)) > 1)
            raise OptionsError(f"The {what} of xla_sharding_options name the core {list(twice)} twice.")
    unknown = [list(core) for core in assigned if core not in devices]
    if unknown:
        raise OptionsError(
            f"The device_assignment of xla_sharding_options names the core {unknown[0]}, which is not among the "
            "device_coordinates of its topology; assign cores that the topology has."
        )
    if len(devices) < options.num_cores_per_replica:
        raise OptionsError(
            f"xla_sharding_options.topology has {len(devices)} cores, expected at least num_cores_per_replica: "
            f"{options.num_cores_per_replica}."
        )


def _parse(topology: bytes) -> TopologyProto:
    try:
        return TopologyProto.FromString(topology)
    except DecodeError as error:
        raise OptionsError(
            f"xla_sharding_options.topology ({len(topology)} bytes) is not a serialized tensorflow.tpu.TopologyProto. "
            "Give the bytes of TopologyProto.SerializeToString(), escaped as a text proto string."
        ) from error


def _coordinates(flat: list[int], what: str) -> list[tuple[int, ...]]:
    if len(flat) % _COORDINATES:
        raise OptionsError(
            f"The {what} have {len(flat)} numbers; expected a multiple of {_COORDINATES} [x, y, z, core]."
        )
    return [tuple(flat[i : i + _COORDINATES]) for i in range(0, len(flat), _COORDINATES)]
