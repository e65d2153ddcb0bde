"""What people see of offset spikes: a line for each layer, before and after each number of iterations."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich import box
from rich.markup import escape
from rich.table import Table

__all__ = ["offsets_table"]


def offsets_table(statistics: Mapping[str, Any], name: str) -> Table:
    """The share of neurons with psi = 0 in percent and the mean squared error in thousandths, by layer.

    Args:
        statistics: What `calibration.offset_spikes.OffsetSpikes.to_dict` returns.
        name: What the user called the network.
    """
    layers: Mapping[str, Mapping[str, Any]] = statistics["layers"]
    iterations = list(next(iter(layers.values())))
    table = Table(
        title=f"Offset spikes of {escape(name)}, rho = {statistics['rho']}, T = {statistics['steps']}, "
        f"{statistics['samples']:,} images",
        title_justify="left",
        title_style="bold",
        caption="psi=0: neurons (%) with no spike too few or too many in rho steps. MSE: of spikes / T from "
        "activation / theta, in thousandths.",
        caption_justify="left",
        box=box.SIMPLE_HEAD,
        pad_edge=False,
        padding=(0, 1, 0, 0),
    )
    table.add_column("layer", overflow="fold")
    for what in ("psi=0", "MSE"):
        for k in iterations:
            table.add_column(f"{what}\n{'before' if k == '0' else f'x{k}'}", justify="right", no_wrap=True)
    for layer, rows in layers.items():
        shares = [f"{100 * rows[k]['no_offset']:.2f}" for k in iterations]
        table.add_row(escape(layer), *shares, *(f"{1000 * rows[k]['mse']:.2f}" for k in iterations))
    return table
