"""A bundle's ONNX graph in ONNX Runtime, on any execution provider."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from cos_export.bounds import MOST_BATCH, MOST_THREADS
from cos_export.bundle import Bundle
from cos_export.bundle.target import Availability
from cos_export.errors import BundleError, InputError, TargetError, UnavailableError
from cos_export.network import FloatArray, SampleStates, check_steps
from cos_export.network.workload import samples_at_once
from cos_export.onnx_file import without_spikes
from cos_export.onnx_file.description import PRESIMULATED, presimulated_steps
from cos_export.onnx_file.outputs import trace_of
from cos_export.onnx_file.pruning import with_states_given
from cos_export.onnx_file.session import (
    ARRAYS_FOLDER,
    constants_are_cheap,
    open_session,
    plenty_of_seconds,
    run_session,
)
from cos_export.progress import Progress, silent
from cos_export.reading.onnx_model import read_onnx
from cos_export.simulation.trace import Recording, Trace
from cos_export.storage import is_utf8
from cos_export.whole_number import whole_number
from targets.deadline import check_deadline, seconds_left
from targets.state_feeds import graph_images, state_feeds

if TYPE_CHECKING:
    import onnxruntime

__all__ = ["OnnxRuntimeTarget"]

_EXACT: dict[str, dict[str, str]] = {"CUDAExecutionProvider": {"use_tf32": "0"}}
"""Options that keep float32 at full precision, which the rounding bound on spikes relies on."""

_MORE_TIME = (
    "Allow it more with deadline= (--deadline on the command line), unless the graph has a loop without an end, or "
    "constants that take as long to compute."
)

_LARGEST_KEPT = 2**28
"""Bytes of a graph, 256 MiB, whose session is kept: it holds the file and arrays of its own, three times that."""

_Key = tuple[Path, int, int, bool, bool]


class OnnxRuntimeTarget:
    """ONNX Runtime.

    A session is kept for each file of up to 256 MiB, and reused while the file stays as it is. If spikes are not asked
    for, what collects them is taken out of the graph first.

    Args:
        providers: Execution providers in order of preference, by default the CPU's. One that cannot be used
            is an error: nothing falls back to another.
        threads: Threads within an operator, by default as many as there are cores.
        batch_size: Samples computed at once, on a CPU fewer where layers are large (`samples_at_once`).
        deadline: Seconds that a run may take; by default plenty for each batch that is computed at once.

    Raises:
        InputError: `threads` or `batch_size` is out of bounds, or the deadline is not a positive number.
    """

    def __init__(
        self,
        providers: Sequence[str] | None = None,
        threads: int | None = None,
        batch_size: int = 64,
        deadline: float | None = None,
    ) -> None:
        check_deadline(deadline)
        batch_size = whole_number("batch_size", batch_size, 1, MOST_BATCH)
        threads = None if threads is None else whole_number("threads", threads, 1, MOST_THREADS)
        asked = (providers,) if isinstance(providers, str) else providers
        self.providers = tuple(asked) if asked else ("CPUExecutionProvider",)
        self.threads = threads
        self.batch_size = batch_size
        self.deadline = deadline
        self._sessions: dict[_Key, onnxruntime.InferenceSession] = {}

    @property
    def name(self) -> str:
        """What the command line calls it."""
        return "onnxruntime"

    def available(self) -> Availability:
        """Whether ONNX Runtime is installed and has the providers."""
        try:
            import onnxruntime
        except ImportError as error:
            return Availability(ready=False, reason=f"{error}. Install onnxruntime to use this target.")
        there = onnxruntime.get_available_providers()
        version = f"onnxruntime {onnxruntime.__version__} ({', '.join(there)})"
        missing = [provider for provider in self.providers if provider not in there]
        if missing:
            reason = f"This ONNX Runtime has no {', '.join(missing)}. It has {', '.join(there)}."
            return Availability(ready=False, version=version, reason=reason)
        return Availability(ready=True, version=version)

    def presimulates(self, bundle: Bundle) -> bool:
        """Whether the bundle's graph sets each sample's states by itself.

        Raises:
            BundleError: The bundle has no readable ONNX graph.
            UnavailableError: ONNX Runtime or a provider is not there.
        """
        patience = plenty_of_seconds(bundle.network, 1, bundle.network.num_timesteps or 1)
        patience = patience if self.deadline is None else self.deadline
        return _presimulated(self._session(bundle.onnx_path, False, False, patience)) > 0

    def run(
        self,
        bundle: Bundle,
        images: FloatArray,
        steps: int,
        *,
        states: SampleStates | None = None,
        record_spikes: bool = True,
        progress: Progress = silent,
    ) -> Trace:
        """Runs a batch; arguments and result as `Target.run` says.

        Fewer steps than the graph has are cut from a whole run. Without states the graph of a per-sample method
        pre-simulates by itself, and the trace has what it has set; with them it runs from there, and from the
        network's own in layers of which they say nothing.

        Raises:
            InputError: The images, steps or states do not fit the graph.
            BundleError: The bundle has no readable ONNX graph.
            UnavailableError: ONNX Runtime or a provider is not there.
            TargetError: ONNX Runtime failed, or was not done by the deadline.
        """
        left = seconds_left(self.deadline)
        steps = check_steps(steps, bundle.network)
        array = graph_images(bundle.network, images, steps)
        patience = plenty_of_seconds(bundle.network, 1, steps) if self.deadline is None else max(left(), 0.0)
        session = self._session(bundle.onnx_path, record_spikes, states is not None, patience)
        outputs = [output.name for output in session.get_outputs()]
        known = int(session.get_outputs()[0].shape[0])
        if steps > known:
            raise InputError(
                f"The bundle's ONNX graph has {known} steps, and {steps} were asked for. "
                f"Export it again with --steps {steps}."
            )
        needed = {entry.name: tuple(entry.shape[1:]) for entry in session.get_inputs()}
        overridable = {entry.name: tuple(entry.shape[1:]) for entry in session.get_overridable_initializers()}
        feeds = {"images": array, **state_feeds(bundle.network, needed, overridable, states, len(array))}
        rho = _presimulated(session) if states is None else 0
        on_cpu = self.providers == ("CPUExecutionProvider",)
        size = samples_at_once(bundle.network, known, self.batch_size) if on_cpu else self.batch_size
        plenty = plenty_of_seconds(bundle.network, min(size, len(array)), known + rho)
        recording = Recording(bundle.network, len(array), steps, spikes=record_spikes, states=rho > 0)
        for start in range(0, len(array), size):
            progress("running in ONNX Runtime", start, len(array))
            part = {name: value[start : start + size] for name, value in feeds.items()}
            try:
                values = run_session(session, outputs, part, plenty if self.deadline is None else max(left(), 0.0))
            except TimeoutError as error:
                allowed = f"{plenty:g} s for a batch" if self.deadline is None else f"{self.deadline:g} s"
                raise TargetError(
                    f"ONNX Runtime was not done within {allowed}: {start} of {len(array)} samples were. {_MORE_TIME}"
                ) from error
            except Exception as error:
                # ONNX Runtime's errors have no other common base.
                raise TargetError(f"ONNX Runtime failed: {error}") from error
            found = dict(zip(outputs, values, strict=True))
            trace = trace_of(bundle.network, found, per_sample=bool(rho))
            spikes = {name: value[:steps] for name, value in trace.spikes.items()}
            recording.add(Trace(logits=trace.logits[:steps], spikes=spikes, rho=rho, states=trace.states))
        progress("running in ONNX Runtime", len(array), len(array))
        trace = recording.trace()
        return trace if states is None else replace(trace, states=states)

    def _session(self, path: Path, record_spikes: bool, given: bool, seconds: float) -> onnxruntime.InferenceSession:
        available = self.available()
        if not available.ready:
            raise UnavailableError(available.reason)
        try:
            status = path.stat()
        except OSError as error:
            raise BundleError(f"The bundle has no ONNX graph at {path}: {error}") from error
        key = (path.resolve(), status.st_mtime_ns, status.st_size, record_spikes, given)
        if key not in self._sessions:
            # Sessions of an earlier state of this file would only hold memory.
            self._sessions = {
                old: held for old, held in self._sessions.items() if old[:3] == key[:3] or old[0] != key[0]
            }
            session = self._open(path, record_spikes, given, seconds)
            if status.st_size > _LARGEST_KEPT:
                return session
            self._sessions[key] = session
        return self._sessions[key]

    def _open(self, path: Path, record_spikes: bool, given: bool, seconds: float) -> onnxruntime.InferenceSession:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = self.threads or 0
        # Level 2 warns of each initializer that a run may override, which are meant to be so.
        options.log_severity_level = 3
        if not is_utf8(str(path.parent)):
            raise InputError(f"{path.parent} is not a name of UTF-8, and ONNX Runtime opens no other. Rename it.")
        # Where arrays are that have no room in the graph; `read_onnx` lets no other file be read.
        options.add_session_config_entry(ARRAYS_FOLDER, str(path.parent))
        providers = [(provider, _EXACT.get(provider, {})) for provider in self.providers]
        try:
            model = read_onnx(path)
        except InputError as error:
            raise BundleError(str(error)) from error
        if given:
            model = with_states_given(model)
        try:
            if not record_spikes:
                model = without_spikes(model)
            source, cheap = model.SerializeToString(), constants_are_cheap(model.graph)
            # As large as the network, of which ONNX Runtime makes copies of its own.
            del model
            session = open_session(source, options, providers, seconds, cheap=cheap)
        except TimeoutError as error:
            allowed = seconds if self.deadline is None else self.deadline
            raise TargetError(
                f"ONNX Runtime was not done within {allowed:g} s: it was still opening {path}. {_MORE_TIME}"
            ) from error
        except Exception as error:
            raise TargetError(f"ONNX Runtime cannot load {path}: {error}") from error
        # A provider whose libraries do not load is left out with no more than a warning.
        session.disable_fallback()
        lost = [provider for provider in self.providers if provider not in session.get_providers()]
        if lost:
            raise UnavailableError(
                f"{', '.join(lost)} is part of this ONNX Runtime, but could not be started: its libraries or device "
                "are missing."
            )
        return session


def _presimulated(session: onnxruntime.InferenceSession) -> int:
    """The extra steps that the graph itself spends on each sample."""
    try:
        return presimulated_steps(session.get_modelmeta().custom_metadata_map.get(PRESIMULATED, "0"))
    except UnicodeDecodeError as error:
        raise BundleError(f"The ONNX graph of the bundle is damaged: its metadata are not text: {error}.") from error
