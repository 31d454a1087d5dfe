"""The TensorFlow operations that an export may hold; all others are refused.

Tensor operations compute their outputs from their inputs and attributes alone. They use
no files, network, clock, random number generator or state. The saver assigns the
variables when a server starts; the signatures may only read them (`inspection`).
"""

ARITHMETIC = frozenset(
    """
    Abs AccumulateNV2 Acos Acosh Add AddN AddV2 Angle ApproximateEqual Asin Asinh Atan
    Atan2 Atanh BesselI0 BesselI0e BesselI1 BesselI1e BesselJ0 BesselJ1 BesselK0
    BesselK0e BesselK1 BesselK1e BesselY0 BesselY1 Betainc BitwiseAnd BitwiseOr
    BitwiseXor Ceil ClipByValue Complex ComplexAbs Conj Cos Cosh Cross Cumprod Cumsum
    CumulativeLogsumexp Dawsn Digamma Div DivNoNan Equal Erf Erfc Erfinv Exp Expint
    Expm1 Floor FloorDiv FloorMod FresnelCos FresnelSin Greater GreaterEqual Igamma
    Igammac Imag Inv Invert IsFinite IsInf IsNan LeftShift Less LessEqual Lgamma Log
    Log1p LogicalAnd LogicalNot LogicalOr Maximum Minimum Mod Mul MulNoNan Ndtri Neg
    NextAfter NotEqual Polygamma PopulationCount Pow Real RealDiv Reciprocal RightShift
    Rint Round Rsqrt Select SelectV2 Sign Sin Sinh Spence Sqrt Square SquaredDifference
    Sub Tan TruncateDiv TruncateMod Xdivy Xlog1py Xlogy Zeta
    """.split()
)
REDUCTIONS = frozenset(
    """
    All Any ArgMax ArgMin Bincount DenseBincount EuclideanNorm HistogramFixedWidth
    InTopK InTopKV2 L2Loss Max Mean Min NthElement Prod SegmentMax SegmentMaxV2
    SegmentMean SegmentMin SegmentMinV2 SegmentProd SegmentProdV2 SegmentSum
    SegmentSumV2 Sum TopK TopKV2 UnsortedSegmentMax UnsortedSegmentMin
    UnsortedSegmentProd UnsortedSegmentSum
    """.split()
)
LINEAR_ALGEBRA = frozenset(
    """
    BandedTriangularSolve BatchMatMul BatchMatMulV2 BatchMatMulV3 Cholesky Eig Einsum
    FFT FFT2D FFT3D FFTND IFFT IFFT2D IFFT3D IFFTND IRFFT IRFFT2D IRFFT3D IRFFTND
    LogMatrixDeterminant Lu MatMul MatrixBandPart MatrixDeterminant MatrixDiag
    MatrixDiagPart MatrixDiagPartV2 MatrixDiagPartV3 MatrixDiagV2 MatrixDiagV3
    MatrixExponential MatrixInverse MatrixLogarithm MatrixSetDiag MatrixSetDiagV2
    MatrixSetDiagV3 MatrixSolve MatrixSolveLs MatrixSquareRoot MatrixTriangularSolve Qr
    RFFT RFFT2D RFFT3D RFFTND SelfAdjointEigV2 Svd TridiagonalMatMul TridiagonalSolve
    """.split()
)
LAYERS = frozenset(
    """
    AvgPool AvgPool3D BatchNormWithGlobalNormalization BiasAdd BiasAddV1 Conv Conv2D
    Conv2DBackpropInput Conv2DBackpropInputV2 Conv3D Conv3DBackpropInputV2
    DataFormatDimMap DataFormatVecPermute DepthwiseConv2dNative
    DepthwiseConv2dNativeBackpropInput Dilation2D Elu FakeQuantWithMinMaxArgs
    FakeQuantWithMinMaxVars FakeQuantWithMinMaxVarsPerChannel FusedBatchNorm
    FusedBatchNormV2 FusedBatchNormV3 FusedPadConv2D FusedResizeAndPadConv2D LRN
    LeakyRelu LogSoftmax MaxPool MaxPool3D MaxPoolV2 MaxPoolWithArgmax
    QuantizeAndDequantize QuantizeAndDequantizeV2 QuantizeAndDequantizeV3
    QuantizeAndDequantizeV4 Relu Relu6 Selu Sigmoid Softmax Softplus Softsign Tanh
    """.split()
)
SHAPES = frozenset(
    """
    BatchToSpace BatchToSpaceND BroadcastArgs BroadcastTo Concat ConcatOffset ConcatV2
    ConjugateTranspose DepthToSpace Diag DiagPart DynamicPartition DynamicStitch
    EnsureShape ExpandDims ExtractImagePatches ExtractVolumePatches Fill Gather GatherNd
    GatherV2 InvertPermutation LinSpace ListDiff LowerBound MirrorPad OneHot OnesLike
    Pack Pad PadV2 ParallelDynamicStitch Range Rank Reshape Reverse ReverseSequence
    ReverseV2 Roll ScatterNd Shape ShapeN Size Slice SpaceToBatch SpaceToBatchND
    SpaceToDepth Split SplitV Squeeze StridedSlice TensorScatterAdd TensorScatterMax
    TensorScatterMin TensorScatterSub TensorScatterUpdate TensorStridedSliceUpdate Tile
    Transpose Unique UniqueV2 UniqueWithCounts UniqueWithCountsV2 Unpack UnravelIndex
    UpperBound Where ZerosLike
    """.split()
)
VALUES = frozenset(
    """
    Bitcast Bucketize Cast Const Dequantize Identity IdentityN NoOp
    Placeholder PlaceholderWithDefault PreventGradient QuantizeV2 StopGradient
    """.split()
)
IMAGES = frozenset(
    """
    AdjustContrastv2 AdjustHue AdjustSaturation CombinedNonMaxSuppression CropAndResize
    DecodeAndCropJpeg DecodeBmp DecodeGif DecodeImage DecodeJpeg DecodePng DecodeWebP
    EncodeJpeg EncodePng ExtractJpegShape HSVToRGB
    ImageProjectiveTransformV2 ImageProjectiveTransformV3 NonMaxSuppression
    NonMaxSuppressionV2 NonMaxSuppressionV3 NonMaxSuppressionV4 NonMaxSuppressionV5
    RGBToHSV ResizeArea ResizeBicubic ResizeBilinear ResizeNearestNeighbor
    ScaleAndTranslate
    """.split()
)
STRINGS = frozenset(
    """
    AsString DecodeBase64 DecodeRaw EncodeBase64 ReduceJoin StringJoin StringLength
    StringLower StringStrip StringToNumber StringUpper Substr
    """.split()
)
LISTS = frozenset(
    """
    EmptyTensorList TensorListConcat TensorListConcatLists TensorListConcatV2
    TensorListElementShape TensorListFromTensor TensorListGather TensorListGetItem
    TensorListLength TensorListPopBack TensorListPushBack TensorListReserve
    TensorListResize TensorListScatter TensorListScatterIntoExistingList
    TensorListScatterV2 TensorListSetItem TensorListSplit TensorListStack
    """.split()
)
# The functions that they call are inspected too.
CALLS = frozenset(
    """
    Case If PartitionedCall StatefulPartitionedCall StatelessCase StatelessIf
    StatelessWhile While
    """.split()
)
READS = frozenset(
    "ReadVariableOp ResourceGather ResourceGatherNd VariableShape".split()
)
# Fails, and shows the values that it was given.
CHECKS = frozenset({"Assert"})

IN_FUNCTIONS = frozenset().union(
    *(ARITHMETIC, REDUCTIONS, LINEAR_ALGEBRA, LAYERS, SHAPES, VALUES, IMAGES, STRINGS),
    *(LISTS, CALLS, READS, CHECKS),
)
# Variables are created and assigned outside functions, which may only read them.
IN_GRAPH = IN_FUNCTIONS | {"AssignVariableOp", "VarHandleOp", "VarIsInitializedOp"}
# In the function that writes the variables to files. Servers never call it.
IN_SAVE = frozenset(
    """
    Const DisableCopyOnRead Identity MergeV2Checkpoints NoOp Pack ReadVariableOp SaveV2
    Select ShardedFilename StaticRegexFullMatch StringJoin
    """.split()
)
# In the function that restores the variables from the files (`inspection`).
IN_RESTORE = frozenset("AssignVariableOp Const Identity NoOp RestoreV2".split())
