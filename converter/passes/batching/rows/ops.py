"""What each op does to the rows of a batch: the table of all ops that the converter can follow."""

from __future__ import annotations

from converter.passes.batching.rows import folds, labels, lists, lookups, moving
from converter.passes.batching.rows.site import Site

# The rule of every op that has one.
_TABLE: tuple[tuple[labels.Rule, str], ...] = (
    (
        labels.elementwise,
        """Abs Acos Acosh Add AddN AddV2 Angle ApproximateEqual Asin Asinh Atan Atan2 Atanh BesselI0
        BesselI0e BesselI1 BesselI1e Betainc BitwiseAnd BitwiseOr BitwiseXor BroadcastTo Cast Ceil
        CheckNumerics CheckNumericsV2 ClipByValue Complex ComplexAbs Conj Cos Cosh Digamma Div DivNoNan Elu
        EluGrad EnsureShape Equal Erf Erfc Erfinv Exp Expm1 Floor FloorDiv FloorMod Greater GreaterEqual
        Igamma Igammac Imag Inv Invert IsFinite IsInf IsNan LeakyRelu LeakyReluGrad LeftShift Less LessEqual
        Lgamma Log Log1p LogicalAnd LogicalNot LogicalOr Maximum Minimum Mod Mul MulNoNan Ndtri Neg
        NextAfter NotEqual OnesLike PlaceholderWithDefault Polygamma PopulationCount Pow PreventGradient
        Real RealDiv Reciprocal ReciprocalGrad Relu Relu6 Relu6Grad ReluGrad RightShift Rint Round Rsqrt
        RsqrtGrad SelectV2 Selu SeluGrad Sigmoid SigmoidGrad Sign Sin Sinh Snapshot Softplus SoftplusGrad
        Softsign SoftsignGrad Sqrt SqrtGrad Square SquaredDifference StopGradient StringJoin Sub Substr Tan Tanh
        TanhGrad ToBool TruncateDiv TruncateMod Xdivy XlaReducePrecision XlaSharding Xlog1py Xlogy ZerosLike
        Zeta""",
    ),
    (
        labels.elements_of_first,
        """AsString Bitcast Bucketize DataFormatDimMap DecodeBase64 DecodePaddedRaw DecodeRaw EncodeBase64
        FakeQuantWithMinMaxArgs FakeQuantWithMinMaxVars FakeQuantWithMinMaxVarsPerChannel RegexFullMatch RegexReplace
        StaticRegexFullMatch StaticRegexReplace StringLength StringLower StringStrip StringToHashBucket
        StringToHashBucketFast StringToHashBucketStrong StringToNumber StringUpper""",
    ),
    (labels.reduction, "All Any ArgMax ArgMin EuclideanNorm Max Mean Min Prod ReduceJoin Sum"),
    (labels.along(labels.axes_input(1)), "Cumprod Cumsum CumulativeLogsumexp ReverseV2"),
    (labels.along(labels.axes_input(2)), "Roll"),
    (labels.along(labels.flagged_dims), "Reverse"),
    (
        labels.along(labels.last_dims(1)),
        """ApproxTopK FFT HSVToRGB IFFT IRFFT KthOrderStatistic LRN LogSoftmax NthElement RFFT RGBToHSV Softmax
        TopK TopKV2""",
    ),
    (labels.along(labels.last_dims(2)), "FFT2D IFFT2D IRFFT2D MatrixBandPart RFFT2D"),
    (labels.along(labels.last_dims(3)), "AdjustContrastv2 AdjustHue AdjustSaturation FFT3D IFFT3D IRFFT3D RFFT3D"),
    (labels.leading(1), "Cross MatrixDiag MatrixDiagV2 MatrixDiagV3 SoftmaxCrossEntropyWithLogits"),
    (
        labels.leading(2),
        """Cholesky LogMatrixDeterminant Lu MatrixDeterminant MatrixDiagPart MatrixDiagPartV2 MatrixDiagPartV3
        MatrixExponential MatrixInverse MatrixLogarithm MatrixSetDiag MatrixSetDiagV2 MatrixSetDiagV3 MatrixSolve
        MatrixSquareRoot MatrixTriangularSolve Qr SelfAdjointEigV2 Svd TridiagonalSolve""",
    ),
    (labels.rowwise(0), "Multinomial"),
    (
        labels.rowwise(0, 1),
        """CombinedNonMaxSuppression ImageProjectiveTransformV2 ImageProjectiveTransformV3 InTopK InTopKV2 LowerBound
        SparseSoftmaxCrossEntropyWithLogits UpperBound""",
    ),
    (labels.image(0, labels.UNSURE, labels.points), "Conv2D Conv3D DepthwiseConv2dNative"),
    (labels.image(0, labels.UNSURE), "Dilation2D"),
    (labels.image(2, labels.UNSURE), "Conv2DBackpropInput Conv3DBackpropInputV2 DepthwiseConv2dNativeBackpropInput"),
    (
        labels.image(0, "c"),
        """AvgPool AvgPool3D MaxPool MaxPool3D MaxPoolV2 ResizeArea ResizeBicubic ResizeBilinear ResizeNearestNeighbor
        ScaleAndTranslate""",
    ),
    (labels.image(0, None), "DepthToSpace ExtractImagePatches ExtractVolumePatches SpaceToDepth"),
    (labels.batch_norm, "FusedBatchNorm FusedBatchNormV2 FusedBatchNormV3"),
    (labels.bias, "BiasAdd BiasAddV1"),
    (labels.select, "Select"),
    (moving.transpose, "ConjugateTranspose Transpose"),
    (moving.expand_dims, "ExpandDims"),
    (moving.squeeze, "Squeeze"),
    (moving.join, "Concat ConcatV2"),
    (moving.split, "Split SplitV"),
    (moving.pack, "Pack"),
    (moving.unpack, "Unpack"),
    (moving.pad, "MirrorPad Pad PadV2"),
    (moving.slices, "Slice"),
    (moving.strided_slice, "StridedSlice"),
    (moving.gather, "Gather GatherV2"),
    (moving.gather_nd, "GatherNd"),
    (moving.variable_gather, "ResourceGather"),
    (moving.table_lookup, "LookupTableFind LookupTableFindV2"),
    (moving.one_hot, "OneHot"),
    (moving.reverse_sequence, "ReverseSequence"),
    (moving.dense_bincount, "DenseBincount"),
    (labels.matmul, "BatchMatMul BatchMatMulV2 BatchMatMulV3 MatMul SparseMatMul"),
    (labels.einsum, "Einsum XlaEinsum"),
    (labels.quantized, "QuantizeAndDequantizeV2 QuantizeAndDequantizeV3 QuantizeAndDequantizeV4"),
    (
        labels.nothing_kept,
        "Bincount Fill L2Loss NonMaxSuppressionV3 NonMaxSuppressionV4 NonMaxSuppressionV5 RandomShuffle",
    ),
)
_LABELS: dict[str, labels.Rule] = {op: rule for rule, names in _TABLE for op in names.split()}


def labels_of(site: Site) -> labels.Labels | None:
    """The labels of a node's dimensions; None if the op, or what it needs to know, is not known."""
    rule = _LABELS.get(site.node.op)
    return None if rule is None else rule(site)


def is_elementwise(op: str) -> bool:
    """Whether each element of an op's output is made of those in the same place."""
    return _LABELS.get(op) is labels.elementwise or _FOLDS.get(op) is lists.same


def _first(*rules: folds.Fold) -> folds.Fold:
    """The first of these rules that says something."""
    return lambda site, values: next((found for rule in rules if (found := rule(site, values)) is not None), None)


_PASSING = (
    *("Identity", "TPUReplicatedInput", "TPUReplicatedOutput"),
    *("TensorListFromTensor", "TensorListStack", "TensorListResize"),
)
_FOLDS: dict[str, folds.Fold] = {
    **dict.fromkeys(("Shape", "ShapeN", "Size", "TensorListLength"), folds.sizes),
    **dict.fromkeys(("Range", "LinSpace"), folds.numbers),
    "Reshape": folds.reshape,
    **dict.fromkeys(("Concat", "ConcatV2"), folds.concat_blocks),
    **dict.fromkeys(("Split", "SplitV"), folds.split_blocks),
    "Slice": folds.part_of_blocks,
    "StridedSlice": _first(lists.index_by_turn, folds.part_of_blocks),
    "Tile": folds.tile,
    "SpaceToBatchND": folds.space_to_batch,
    "BatchToSpaceND": folds.batch_to_space,
    **dict.fromkeys(("Gather", "GatherV2"), _first(lists.index_by_turn, lookups.gather_rows)),
    **dict.fromkeys((f"UnsortedSegment{how}" for how in ("Max", "Min", "Prod", "Sum")), lookups.segment_rows),
    "GatherNd": lookups.gather_nd_rows,
    "CropAndResize": lookups.crop_rows,
    "ScatterNd": lookups.scatter_rows,
    **dict.fromkeys((f"TensorScatter{how}" for how in ("Update", "Add", "Sub", "Max", "Min")), lookups.scatter_rows),
    "XlaDynamicUpdateSlice": lookups.update_slice,
    "IdentityN": lists.each_its_own,
    **dict.fromkeys(("Rank", "TensorListReserve", "EmptyTensorList", "TensorListElementShape"), lists.new_list),
    **dict.fromkeys(_PASSING, lists.same),
    "TensorListGetItem": lists.get_item,
    **dict.fromkeys(("TensorListSetItem", "TensorListPushBack"), lists.set_item),
    "TensorListPopBack": lists.pop_item,
}


def fold_of(op: str) -> folds.Fold | None:
    """The rule of an op that may move rows."""
    return _FOLDS.get(op)
