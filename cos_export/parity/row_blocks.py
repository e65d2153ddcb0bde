"""A large matrix as several small ones: what is made of its weights is not held for all of them at once."""

from __future__ import annotations

import nir
import numpy as np

from cos_export.network.graph import with_attributes

__all__ = ["row_blocks"]


def row_blocks(node: nir.NIRNode, most: int) -> list[nir.NIRNode]:
    """The node as matrices of a few of its rows each, whose outputs side by side are those of the node.

    Args:
        node: Any node that is not a neuron; one that is not a matrix stays whole.
        most: Weights in a block, if one row has no more. The weights are views of the node's.
    """
    if not isinstance(node, (nir.Affine, nir.Linear)) or np.size(node.weight) <= most:
        return [node]
    rows, columns = np.shape(node.weight)
    size = max(1, most // columns)
    blocks = []
    for start in range(0, rows, size):
        block = slice(start, start + size)
        fields = {"weight": np.asarray(node.weight)[block]}
        if isinstance(node, nir.Affine):
            fields["bias"] = np.broadcast_to(np.asarray(node.bias), (rows,))[block].copy()
        blocks.append(with_attributes(node, **fields))
    return blocks
