"""Which nodes of a network the `nir` library's own type check refuses, though they are valid NIR.

Its inference takes the input channels of a convolution from the weight, which is wrong for groups, and the kernel of
the first axis for both. `nir.read(path)` runs it and raises; `nir.read(path, type_check=False)` does not.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping

import nir

from cos_export.errors import Notice

__all__ = ["TypeCheckNotice", "refused_by_nir", "type_check_note"]


def refused_by_nir(graph: nir.NIRGraph) -> dict[str, str]:
    """The nodes that `nir.read` refuses in a file of this graph.

    Each is asked about alone, between an Input and an Output of the shapes that it has in the graph.

    Args:
        graph: As `write_nir` writes it, each node with its types.

    Returns:
        By the node's name, what the installed `nir` says.
    """
    refusals: dict[str, str] = {}
    for name, written in graph.nodes.items():
        if isinstance(written, nir.Input | nir.Output | nir.IF):
            continue
        node, arriving, made = copy.copy(written), written.input_type["input"], written.output_type["output"]
        try:
            node.__post_init__()
            nir.NIRGraph(
                {"input": nir.Input(arriving), "node": node, "output": nir.Output(made)},
                [("input", "node"), ("node", "output")],
            )
        except (ArithmeticError, AttributeError, IndexError, TypeError, ValueError) as error:
            refusals[name] = str(error)[:500]
    return refusals


class TypeCheckNotice(Notice):
    """A NIR file that `nir.read` cannot open as it is usually called."""


def type_check_note(refused: Mapping[str, str]) -> str:
    """A line for the user about such nodes, of which there is at least one.

    Args:
        refused: As `refused_by_nir` has it.
    """
    names = [*refused][:5] + (["..."] if len(refused) > 5 else [])
    return (
        f"model.nir is valid NIR, and the type check of the nir library refuses {len(refused)} of its nodes "
        f"({', '.join(names)}: groups, or a kernel that is not square). nir.read(path) raises; "
        "nir.read(path, type_check=False) and cos_export.read_nir read it. Written with --dense-kernels "
        "(cos_export.with_dense_kernels in Python), with weights of 0 in between, nir.read(path) opens it."
    )
