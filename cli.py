"""The command line: its commands, and the exit codes that it ends with."""

from __future__ import annotations

import signal
import sys
import warnings
from collections.abc import Callable
from functools import partial
from types import FrameType
from typing import NoReturn, TextIO

import typer

from cos_export.commands import conversion, deployment, networks
from cos_export.commands.method_options import CalibratingCommand
from cos_export.errors import CosExportError, Notice
from cos_export.terminal.output import fail
from cos_export.terminal.standard_output import release, reserved

__all__ = ["app", "main"]

INTERRUPTED = 130
"""The exit code after Ctrl-C, as shells have it."""

app = typer.Typer(
    name="cos-export",
    help="From a trained PyTorch network to calibrated integrate-and-fire neurons, as NIR and ONNX, with proof.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("convert-and-export", cls=CalibratingCommand)(reserved(conversion.convert_and_export))
app.command("calibrate", cls=CalibratingCommand)(reserved(conversion.calibrate))
app.command("check")(reserved(networks.check))
app.command("verify")(reserved(deployment.verify))
app.command("report")(reserved(deployment.report))
app.command("run")(reserved(deployment.run_bundle))
app.command("offsets")(reserved(networks.offsets))
app.command("train")(reserved(networks.train))
app.command("targets")(reserved(deployment.list_targets))


def main() -> NoReturn:
    """Runs the command line: exits 0 if done, 1 if a check failed, 2 on wrong input, 3 if a target is missing."""
    # A polite kill unwinds like Ctrl-C, so that half-written files and worker processes are cleaned up.
    signal.signal(signal.SIGTERM, _terminate)
    as_json = "--json" in sys.argv
    with warnings.catch_warnings():
        warnings.showwarning = partial(_show_warning, warnings.showwarning)
        warnings.simplefilter("always", Notice)
        try:
            code = app(standalone_mode=False) or 0
            if code == INTERRUPTED:
                code = fail("Interrupted. Nothing was left half-written.", INTERRUPTED, as_json)
        except CosExportError as error:
            code = fail(str(error), error.exit_code, as_json)
        except typer.TyperException as error:
            code = fail(f"{error.format_message()} See cos-export --help.", 2, as_json)
        except OSError as error:
            code = fail(str(error), 1, as_json)
        finally:
            release()
    sys.exit(code)


def _show_warning(
    others: Callable[..., None],
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    """Prints what this package has to say as a note, without the line of its code, and other warnings as ever."""
    if issubclass(category, Notice):
        sys.stderr.write(f"note: {message}\n")
    else:
        others(message, category, filename, lineno, file, line)


def _terminate(signal_number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    main()
