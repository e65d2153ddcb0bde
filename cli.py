"""The command line: its commands, and the exit codes that it ends with."""

from __future__ import annotations

import os
import signal
import sys
import time
import warnings
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from typing import TYPE_CHECKING, NoReturn, TextIO

if TYPE_CHECKING:  # little is imported before signals are handled, for a signal may come at once
    from types import FrameType

    from typer import Typer

__all__ = ["main"]

INTERRUPTED = 130
"""The exit code after Ctrl-C, as shells have it; and after a polite kill or a closed terminal, which unwind alike."""

BROKEN_PIPE = 141
"""The exit code of a command that was done when its reader had gone, as in `| head -1`: that of SIGPIPE in shells."""

PATIENCE = 5.0
"""Seconds that an interrupted command has to clean up, in which further signals are ignored."""

SHARED = ("convert-and-export", "calibrate", "search", "run", "train")
"""Commands that share their work among the processes that torchrun starts."""


def main() -> NoReturn:
    """Runs the command line: exits 0 if done, 1 if a check failed, 2 on wrong input, 3 if a target is missing.

    What was asked for is done to its end whatever becomes of the standard streams. Then, in place of 0, it exits 141 if
    the reader of standard output had gone, and 1 if it could not be written for another reason.
    """
    interruption = _Interruption()
    as_json = "--json" in sys.argv
    code: int | None = None
    streams = ExitStack()
    try:
        try:
            interruption.listen()
            from cos_export.terminal.steady import steady_streams

            streams.enter_context(steady_streams())
            code = _run(interruption, as_json)
        except KeyboardInterrupt:
            interruption.no_more()
            code = _interrupted(code, as_json)
    except KeyboardInterrupt:
        # One that was lost and sent again, while another was on its way to the line above.
        interruption.no_more()
        code = _interrupted(code, as_json)
    finally:
        interruption.no_more()
        from cos_export.terminal.standard_output import release

        failure = release()
        if failure is not None:
            code = _unwritten(failure, code)
        streams.close()
    sys.exit(code)


def _interrupted(code: int | None, as_json: bool) -> int:
    """The exit code of a command that was interrupted, unless it was done."""
    import ctypes

    from cos_export.terminal.one_voice import Failure
    from cos_export.terminal.output import fail

    # Where an interruption came in code that was run as text, as dataclasses make their methods, CPython remembers it,
    # and `python -m` would end by SIGINT in place of the exit code. Any other text makes it forget.
    ctypes.pythonapi.PyRun_SimpleString(b"")
    if code is not None:
        return code
    return fail("Interrupted. Nothing was left half-written.", INTERRUPTED, as_json, Failure.interrupted)


def _run(interruption: _Interruption, as_json: bool) -> int:
    try:
        with warnings.catch_warnings():
            warnings.showwarning = partial(_show_warning, warnings.showwarning)
            # The command line's own way of reporting an interruption is this code.
            code: int = _app()(standalone_mode=False) or 0
        if code == INTERRUPTED:
            raise KeyboardInterrupt
    except Exception as error:
        if interruption.received:  # Libraries wrap it in errors of their own.
            raise KeyboardInterrupt from error
        code = _explained(error, as_json)
    return code


def _unwritten(failure: OSError, code: int | None) -> int | None:
    """The exit code where standard output could not be written."""
    if isinstance(failure, BrokenPipeError):
        return code or BROKEN_PIPE
    from cos_export.terminal.output import fail

    reason = failure.strerror or str(failure)
    done = "" if code else " What was asked for is done."
    return fail(f"Standard output could not be written: {reason}.{done}", code or 1, False)


def _app() -> Typer:
    import typer

    from cos_export.commands import analysis, code, conversion, deployment, golden, networks, searching
    from cos_export.commands.method_options import CalibratingCommand
    from cos_export.errors import Notice
    from cos_export.terminal.one_voice import alone
    from cos_export.terminal.quiet import quietable
    from cos_export.terminal.standard_output import reserved

    warnings.simplefilter("always", Notice)
    app = typer.Typer(
        name="cos-export",
        help="From a trained PyTorch network to calibrated integrate-and-fire neurons, as NIR and ONNX, with proof.",
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    for name, command in (
        ("convert-and-export", conversion.convert_and_export),
        ("calibrate", conversion.calibrate),
        ("search", searching.search),
        ("check", networks.check),
        ("verify", deployment.verify),
        ("report", deployment.report),
        ("run", deployment.run_bundle),
        ("analyze", analysis.analyze),
        ("offsets", networks.offsets),
        ("train", networks.train),
        ("code", code.code),
        ("golden", golden.golden),
        ("targets", deployment.list_targets),
    ):
        kind = CalibratingCommand if command in (conversion.convert_and_export, conversion.calibrate) else None
        app.command(name, cls=kind)(reserved(quietable(command if name in SHARED else alone(command, name))))
    return app


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
    from cos_export.errors import Notice
    from cos_export.terminal.quiet import is_quiet

    if is_quiet():
        return
    if issubclass(category, Notice):
        from cos_export.terminal.printable import printable_message

        sys.stderr.write(f"note: {printable_message(str(message))}\n")
    else:
        others(message, category, filename, lineno, file, line)


def _explained(error: Exception, as_json: bool) -> int:
    """Says what was wrong, and returns the exit code; raises what no user can have caused."""
    import typer

    from cos_export.errors import CosExportError, LostProcessError
    from cos_export.storage import exit_code
    from cos_export.terminal.one_voice import Failure
    from cos_export.terminal.output import fail

    if isinstance(error, CosExportError):
        kind = Failure.lost if isinstance(error, LostProcessError) else Failure.own
        return fail(str(error), error.exit_code, as_json, kind)
    if isinstance(error, typer.TyperException):
        return fail(f"{error.format_message().rstrip('.')}. See cos-export --help.", 2, as_json)
    if isinstance(error, OSError):
        return fail(str(error), exit_code(error), as_json)
    raise error


class _Interruption:
    """What Ctrl-C, a polite kill (SIGTERM) and a closed terminal (SIGHUP) do: from the first line to the last.

    The first of them unwinds the command as a KeyboardInterrupt, so that half-written files and worker processes are
    cleaned up. Those that follow at once, as from a supervisor that sends several, do not disturb that; one that comes
    after `PATIENCE` ends the process.

    Attributes:
        received: Whether one has come.
    """

    def __init__(self) -> None:
        self.received = False
        self._since = 0.0
        self._number = signal.SIGINT
        # One that is ignored stays so, as under nohup or in the background of a script.
        numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
        self._numbers = [number for number in numbers if signal.getsignal(number) is not signal.SIG_IGN]

    def listen(self) -> None:
        """Begins."""
        sys.unraisablehook = self._lost
        for number in self._numbers:
            signal.signal(number, self._handle)

    def no_more(self) -> None:
        """Ignores all that come from now on: all is done, and the exit code is known."""
        for number in self._numbers:
            signal.signal(number, signal.SIG_IGN)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if not self.received:
            self.received, self._since, self._number = True, time.monotonic(), signal.Signals(number)
            raise KeyboardInterrupt
        if time.monotonic() - self._since > PATIENCE:
            os._exit(INTERRUPTED)

    def _lost(self, error: sys.UnraisableHookArgs) -> None:
        """Sends again a signal that came where no exception can pass, as in a destructor or a callback."""
        if not issubclass(error.exc_type, KeyboardInterrupt):
            sys.__unraisablehook__(error)
            return
        import threading

        # Python raises it in the main thread alone.
        main_thread = threading.get_ident()

        def again() -> None:
            time.sleep(0.02)
            self.received = False
            # A signal of the system's, which a sleep or a wait for a worker ends for, as it does not for a flag.
            signal.pthread_kill(main_thread, self._number)

        threading.Thread(target=again, daemon=True).start()


if __name__ == "__main__":
    main()
