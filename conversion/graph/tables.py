"""The operators that have a rule, by what they do to a signal over time; see `conversion.graph.ops`."""

from __future__ import annotations


def names(text: str) -> frozenset[str]:
    """The words of ``text``."""
    return frozenset(text.split())


# affine whatever the other operands are, as long as only one kind of operand is the signal
SHAPE = names(
    """
    view reshape _unsafe_view permute transpose t unsqueeze squeeze expand clone contiguous slice select
    unbind split split_with_sizes chunk cat stack roll flatten unflatten alias detach _to_copy to
    repeat flip index_select index gather pixel_shuffle pixel_unshuffle constant_pad_nd pad im2col
    unfold narrow movedim lift_fresh_copy channel_shuffle native_channel_shuffle repeat_interleave
    swapaxes upsample_nearest1d upsample_nearest2d upsample_nearest3d _upsample_nearest_exact1d
    _upsample_nearest_exact2d _upsample_nearest_exact3d upsample_linear1d upsample_bilinear2d
    upsample_trilinear3d _upsample_bilinear2d_aa upsample_bicubic2d _upsample_bicubic2d_aa
    reflection_pad1d reflection_pad2d reflection_pad3d replication_pad1d replication_pad2d
    replication_pad3d rot90 moveaxis tile squeeze_ unsqueeze_ diagonal diag_embed tril triu
    """
)
LINEAR = names(
    """
    neg mean sum avg_pool1d avg_pool2d avg_pool3d adaptive_avg_pool1d adaptive_avg_pool2d
    _adaptive_avg_pool2d adaptive_avg_pool3d _adaptive_avg_pool3d cumsum col2im batch_norm
    _native_batch_norm_legit_no_training
    """
)
# affine in every operand
SUMS = names("add sub rsub slice_scatter select_scatter diagonal_scatter copy")
# affine in what is read and written, as long as the positions do not depend on the image
ASSIGNMENTS = {
    "index_put": (0, 2), "index_add": (0, 3), "index_copy": (0, 3), "scatter": (0, 3), "scatter_add": (0, 3),
    "scatter_reduce": (0, 3),
}  # fmt: skip
# affine in these operands, as long as the others do not depend on the image
BLENDS = {"lerp": (0, 1), "grid_sampler_2d": (0,), "grid_sampler_3d": (0,)}
WEIGHTED = names("conv1d conv2d conv3d convolution conv_transpose1d conv_transpose2d conv_transpose3d linear")
# affine in any one operand
PRODUCTS = names("mul matmul bmm mm mv einsum linalg_vecdot dot addbmm addcmul _trilinear")
MASKS = names("where masked_fill")  # affine if the mask does not depend on the image
NONLINEAR = names(
    """
    gelu silu sigmoid tanh hardswish hardsigmoid softmax _softmax _safe_softmax log_softmax _log_softmax
    layer_norm native_layer_norm group_norm native_group_norm instance_norm rms_norm leaky_relu elu celu
    selu mish softplus prelu max_pool1d max_pool2d max_pool3d max_pool2d_with_indices
    max_pool3d_with_indices adaptive_max_pool1d adaptive_max_pool2d adaptive_max_pool3d clamp
    clamp_min clamp_max pow sqrt rsqrt exp expm1 log log1p log2 log10 abs amax amin reciprocal
    linalg_vector_norm norm erf erfc erfinv sin cos tan asin acos atan sinh cosh asinh acosh atanh var std
    var_mean square scaled_dot_product_attention minimum maximum hardshrink softshrink threshold logit
    logsumexp logcumsumexp sign sgn floor ceil round trunc frac exp2 sinc glu logaddexp logaddexp2 max min
    prod cumprod cummax cummin topk sort argsort kthvalue median nanmedian mode argmax argmin fmod
    remainder floor_divide atan2 hypot copysign log_sigmoid lgamma digamma _cdist_forward cdist renorm
    gt ge lt le eq ne logical_not logical_and logical_or logical_xor bitwise_not bitwise_and bitwise_or
    bitwise_xor heaviside isnan isinf isfinite any all embedding one_hot linalg_inv_ex linalg_det nan_to_num
    """
)
ACTIVATIONS = frozenset({"relu", "hardtanh", "relu6", "fulgurite.qcfs"})

# (multiplications of) these have weights: a neuron in front of them turns products into sums
MATRIX_PRODUCTS = names("matmul bmm mm mv einsum linalg_vecdot")
ATTENTION = "scaled_dot_product_attention"
# sums of products, whether their operands get neurons or not
MULTIPLIES = PRODUCTS - names("mul addcmul") | {ATTENTION}
COPIES = names("embedding one_hot")  # these look values up and compute none

# of a shape, a type and a number, and of no value of a signal
FILLED = {
    "zeros": 0, "zeros_like": 0, "new_zeros": 0, "zero": 0, "empty": 0, "empty_like": 0, "new_empty": 0,
    "ones": 1, "ones_like": 1, "new_ones": 1, "full": None, "full_like": None, "new_full": None, "fill": None,
}  # fmt: skip

# written in other operators before any rule is asked for
REWRITTEN = names("type_as view_as reshape_as expand_as baddbmm addmm")

RANDOM = names(
    """
    rand randn randint randperm rand_like randn_like randint_like bernoulli normal normal_functional uniform
    exponential cauchy geometric log_normal poisson multinomial native_dropout rrelu_with_noise_functional
    """
)
# what stands in the way of a rule
REFUSED = {
    **dict.fromkeys(RANDOM, "draws random numbers; take it out for evaluation"),
    "masked_scatter": "fills positions in the order of memory, across images; use where or index_put",
    "as_strided": "depends on how a tensor lies in memory; use slices and views",
    "_native_batch_norm_legit": "normalises by the batch at hand; give it running statistics",
    "nonzero": "gives as many values as the image has it, and shapes are fixed in a converted network",
    "_pdist_forward": "takes distances between the images of a batch",
    "_embedding_bag": "has no rule; use embedding and a sum",
    **dict.fromkeys(
        names("_fft_r2c _fft_c2c _fft_c2r view_as_complex view_as_real complex polar angle"),
        "makes complex numbers, which no neuron can send; write it as two products with real matrices",
    ),
}
