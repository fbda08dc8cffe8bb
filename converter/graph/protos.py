"""TensorFlow's protos: the only module that imports them, and the names that all others know them by.

Their types come from `types-tensorflow`. What holds several of them (`Nodes`, `Attrs`, `Shapes`) has a type of protobuf
that only exists for the type checker: at run time, protobuf's C library has others.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

from tensorflow import __version__ as TENSORFLOW_VERSION
from tensorflow.core.framework import types_pb2
from tensorflow.core.framework.attr_value_pb2 import AttrValue, NameAttrList
from tensorflow.core.framework.full_type_pb2 import TFT_BFLOAT16, TFT_FLOAT, FullTypeDef
from tensorflow.core.framework.function_pb2 import FunctionDef
from tensorflow.core.framework.graph_pb2 import GraphDef
from tensorflow.core.framework.kernel_def_pb2 import KernelList
from tensorflow.core.framework.node_def_pb2 import NodeDef
from tensorflow.core.framework.op_def_pb2 import OpDef, OpList
from tensorflow.core.framework.tensor_pb2 import TensorProto
from tensorflow.core.framework.tensor_shape_pb2 import TensorShapeProto
from tensorflow.core.framework.types_pb2 import (
    DT_BFLOAT16,
    DT_COMPLEX64,
    DT_COMPLEX128,
    DT_DOUBLE,
    DT_FLOAT,
    DT_HALF,
    DT_INT32,
    DT_INT64,
    DT_INVALID,
    DT_RESOURCE,
    DT_STRING,
    DT_VARIANT,
)
from tensorflow.core.protobuf.meta_graph_pb2 import MetaGraphDef, SignatureDef, TensorInfo
from tensorflow.core.protobuf.saved_model_pb2 import SavedModel
from tensorflow.core.protobuf.saved_object_graph_pb2 import (
    CapturedTensor,
    FunctionSpec,
    SavedObject,
    SavedObjectGraph,
    SavedVariable,
)
from tensorflow.core.protobuf.struct_pb2 import StructuredValue, TypeSpecProto
from tensorflow.core.protobuf.tpu.topology_pb2 import TopologyProto
from tensorflow.core.protobuf.trackable_object_graph_pb2 import TrackableObjectGraph

if TYPE_CHECKING:
    from google.protobuf.internal.containers import MessageMap, RepeatedCompositeFieldContainer

    DataType: TypeAlias = types_pb2.DataType.ValueType
else:
    DataType = int

__all__ = [
    "DATA_TYPES",
    "DT_BFLOAT16",
    "DT_COMPLEX64",
    "DT_COMPLEX128",
    "DT_DOUBLE",
    "DT_FLOAT",
    "DT_HALF",
    "DT_INT32",
    "DT_INT64",
    "DT_INVALID",
    "DT_RESOURCE",
    "DT_STRING",
    "DT_VARIANT",
    "TENSORFLOW_VERSION",
    "TFT_BFLOAT16",
    "TFT_FLOAT",
    "ArgDef",
    "AttrValue",
    "Attrs",
    "CapturedTensor",
    "DataType",
    "FullTypeDef",
    "FunctionDef",
    "FunctionSpec",
    "GraphDef",
    "KernelList",
    "MetaGraphDef",
    "NameAttrList",
    "NodeDef",
    "Nodes",
    "ObjectReference",
    "OpDef",
    "OpList",
    "SavedModel",
    "SavedObject",
    "SavedObjectGraph",
    "SavedVariable",
    "Shapes",
    "SignatureDef",
    "StructuredValue",
    "TensorInfo",
    "TensorProto",
    "TensorShapeProto",
    "TopologyProto",
    "TypeSpecProto",
]

ArgDef = OpDef.ArgDef
ObjectReference = TrackableObjectGraph.TrackableObject.ObjectReference

Nodes: TypeAlias = "RepeatedCompositeFieldContainer[NodeDef]"
Shapes: TypeAlias = "RepeatedCompositeFieldContainer[TensorShapeProto]"
Attrs: TypeAlias = "MessageMap[str, AttrValue]"

DATA_TYPES = frozenset(types_pb2.DataType.values())
"""All numbers that types.proto knows, DT_INVALID and reference types included."""
