"""Traced operations that are known to be row-invariant: a row's result does not depend on its position in a stack.

The lists result from a review of ATen's kernels. If a step has other operations, preflight tests every stack size that
can occur.
"""

from collections.abc import Iterable
from typing import Any

import torch
from torch.fx import Graph

from .elementwise import UNTAGGED

COPIES = frozenset(
    "_reshape_alias _to_copy _unsafe_view alias arange as_strided cat chunk clone constant_pad_nd copy copy_ "
    "detach diagonal empty empty_like empty_strided expand eye fill fill_ flip full full_like gather index "
    "index_select lift_fresh_copy movedim narrow new_empty new_empty_strided new_full new_ones new_zeros ones "
    "ones_like permute pixel_shuffle pixel_unshuffle repeat reshape roll scalar_tensor select select_backward "
    "slice slice_backward split split_with_sizes squeeze stack t to transpose tril triu unbind unfold "
    "unsafe_split unsafe_split_with_sizes unsqueeze upsample_nearest1d upsample_nearest2d upsample_nearest3d view "
    "view_as_complex view_as_real zero_ zeros zeros_like".split()
)
"""Operations that move elements without arithmetic."""
SEPARATE_ELEMENTS = frozenset(
    "_adaptive_avg_pool2d _adaptive_avg_pool2d_backward _log_softmax _log_softmax_backward_data _safe_softmax "
    "_softmax _softmax_backward_data all amax amin any argmax argmin avg_pool2d avg_pool2d_backward embedding "
    "embedding_dense_backward linalg_vector_norm log_sigmoid_forward max max_pool2d_with_indices "
    "max_pool2d_with_indices_backward min native_batch_norm native_group_norm native_group_norm_backward "
    "native_layer_norm native_layer_norm_backward nll_loss_backward nll_loss_forward prod scatter_add sort std "
    "topk upsample_bicubic2d upsample_bicubic2d_backward upsample_bilinear2d upsample_bilinear2d_backward "
    "upsample_linear1d upsample_linear1d_backward upsample_nearest1d_backward upsample_nearest2d_backward "
    "upsample_nearest3d_backward var var_mean".split()
)
"""Operations that compute each output element separately, or all channels of a pixel in operations that round once."""
ORDERED = frozenset(["mean", "nansum", "logsumexp", "sum", "column_sums", "sums_of_rows"])
"""Reductions whose order depends only on the reduced sizes, which `Recorder` ensures."""
SEPARATE_PRODUCTS = frozenset(["bmm", "baddbmm", "convolution", "convolution_backward"])
"""Operations that compute a separate product for each model or group of channels."""
REVIEWED = COPIES | SEPARATE_ELEMENTS | ORDERED | SEPARATE_PRODUCTS


def unreviewed(graph: Graph) -> frozenset[str]:
    """Return the names of a traced step's operations that are not known to be row-invariant."""
    return frozenset(_unreviewed_names(node.target for node in graph.nodes if node.op == "call_function"))


def _unreviewed_names(operations: Iterable[Any]) -> Iterable[str]:
    for operation in operations:
        if isinstance(operation, torch._ops.OpOverload) and torch.Tag.pointwise not in operation.tags:
            name = operation._schema.name.partition("::")[2]
            if name not in REVIEWED and name.rstrip("_") not in UNTAGGED:
                yield name
