"""Tables of figures that stay readable on a narrow terminal."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from rich import box
from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderableType
from rich.table import Table
from rich.text import Text

from cos_export.terminal.printable import printable

__all__ = ["Column", "FigureTable", "figures", "prose"]

_NARROWEST = 16
"""Characters that a column of words keeps at least, in which they fold."""


@dataclass(frozen=True)
class Column:
    """A column of a table.

    Attributes:
        name: Its heading.
        folds: Whether its words may go on in a further line; a figure may not.
        justify: To which side its cells are set.
    """

    name: str
    folds: bool = False
    justify: Literal["left", "right"] = "right"


def prose(name: str) -> Column:
    """A column of names or words, which fold where room is short."""
    return Column(name, folds=True, justify="left")


def figures(*names: str) -> list[Column]:
    """Columns of numbers."""
    return [Column(name) for name in names]


class FigureTable:
    """A table, or, where the terminal is too narrow for it, a line for each figure below the name of its row.

    Cells that are strings are names or numbers, never markup; a `Text` has a style of its own.

    Args:
        title: What it shows.
        columns: Its columns; the first names the rows.
        caption: Said below.
    """

    def __init__(self, title: str, columns: Sequence[Column], caption: str = "") -> None:
        self.title = title
        self.columns = list(columns)
        self.caption = caption
        self._rows: list[list[Text]] = []
        self._sections: set[int] = set()

    def add_row(self, *cells: str | Text) -> None:
        """Adds a row; cells that are missing at its end are empty."""
        row = [cell if isinstance(cell, Text) else Text(printable(cell)) for cell in cells]
        self._rows.append(row + [Text("")] * (len(self.columns) - len(row)))

    def add_section(self) -> None:
        """Draws a line below the last row."""
        self._sections.add(len(self._rows))

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[RenderableType]:
        """The table if it fits, else its lines."""
        if self._narrowest() <= options.max_width:
            yield self._table()
        else:
            yield from self._lines()

    def _narrowest(self) -> int:
        """Characters of a line that it needs."""
        total = 0
        for number, column in enumerate(self.columns):
            cells = [*column.name.split("\n"), *(row[number].plain for row in self._rows)]
            widest = max(map(cell_len, cells))
            total += 1 + (min(widest, _NARROWEST) if column.folds else widest)
        return total - 1

    def _table(self) -> Table:
        table = Table(
            title=Text(printable(self.title)),
            title_justify="left",
            title_style="bold",
            caption=Text(self.caption) if self.caption else None,
            caption_justify="left",
            box=box.SIMPLE_HEAD,
            pad_edge=False,
            padding=(0, 1, 0, 0),
        )
        for column in self.columns:
            table.add_column(
                Text(column.name), justify=column.justify, no_wrap=not column.folds, overflow="fold", ratio=None
            )
        for number, row in enumerate(self._rows):
            if number in self._sections:
                table.add_section()
            table.add_row(*row)
        return table

    def _lines(self) -> Iterator[Text]:
        yield Text(printable(self.title), style="bold", overflow="fold")
        for row in self._rows:
            head, *rest = zip(self.columns, row, strict=True)
            first = Text.assemble((f"{head[0].name} ", "dim"), head[1]) if head[0].justify == "right" else head[1]
            yield Text("").append_text(first)
            for column, cell in rest:
                if cell.plain:
                    label = column.name.replace("\n", " ")
                    yield Text("  ", overflow="fold").append(f"{label}: " if label else "").append_text(cell)
        if self.caption:
            yield Text(self.caption, style="italic", overflow="fold")
        yield Text("")
