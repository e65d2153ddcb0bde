"""What people see of offset spikes: a line for each layer, before and after each number of iterations."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cos_export.terminal.figure_table import FigureTable, figures, prose

__all__ = ["offsets_table"]


def offsets_table(statistics: Mapping[str, Any], name: str) -> FigureTable:
    """The share of neurons with psi = 0 in percent and the mean squared error in thousandths, by layer.

    Args:
        statistics: What `calibration.offset_spikes.OffsetSpikes.to_dict` returns.
        name: What the user called the network.
    """
    layers: Mapping[str, Mapping[str, Any]] = statistics["layers"]
    iterations = list(next(iter(layers.values())))
    headings = [f"{what}\n{'before' if k == '0' else f'x{k}'}" for what in ("psi=0", "MSE") for k in iterations]
    table = FigureTable(
        f"Offset spikes of {name}, rho = {statistics['rho']}, T = {statistics['steps']}, "
        f"{statistics['samples']:,} images",
        [prose("layer"), *figures(*headings)],
        caption="psi=0: neurons (%) with no spike too few or too many in rho steps. MSE: of spikes / T from "
        "activation / theta, in thousandths.",
    )
    for layer, rows in layers.items():
        shares = [f"{100 * rows[k]['no_offset']:.2f}" for k in iterations]
        table.add_row(layer, *shares, *(f"{1000 * rows[k]['mse']:.2f}" for k in iterations))
    return table
