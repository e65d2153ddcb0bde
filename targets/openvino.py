"""A bundle's ONNX graph in OpenVINO, on the CPU, in this process: its package brings nothing that ours lacks."""

from __future__ import annotations

import sys
import time
from dataclasses import replace
from importlib import import_module, metadata
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from cos_export.bundle import Bundle
from cos_export.bundle.target import Availability
from cos_export.errors import BundleError, InputError, TargetError, UnavailableError
from cos_export.network import FloatArray, SampleStates, check_steps
from cos_export.onnx_file.description import PRESIMULATED, presimulated_steps
from cos_export.onnx_file.outputs import trace_of
from cos_export.onnx_file.pruning import with_states_given
from cos_export.onnx_file.session import plenty_of_seconds
from cos_export.progress import Progress, silent
from cos_export.reading.onnx_model import read_onnx
from cos_export.simulation.trace import Recording, Trace
from cos_export.whole_number import whole_number
from targets.deadline import check_deadline, seconds_left
from targets.state_feeds import graph_images, state_feeds

if TYPE_CHECKING:
    import onnx
    import openvino

__all__ = ["OpenVinoTarget"]

_LOOK = 0.1
"""Seconds between two looks at the clock, and at Ctrl-C."""

_EXACT = {"INFERENCE_PRECISION_HINT": "f32", "EXECUTION_MODE_HINT": "ACCURACY"}
"""Without them it computes in bfloat16 where the processor can, which is less than float32 and flips spikes."""


class OpenVinoTarget:
    """OpenVINO's CPU plugin, in float32.

    Args:
        threads: Threads, by default as many as there are cores.
        batch_size: Samples computed at once.
        deadline: Seconds that a run may take; by default plenty for each batch that is computed at once.

    Raises:
        InputError: `threads` or `batch_size` is below 1, or the deadline is not a positive number.
    """

    def __init__(self, threads: int | None = None, batch_size: int = 64, deadline: float | None = None) -> None:
        check_deadline(deadline)
        self.batch_size = whole_number("batch_size", batch_size, 1)
        self.threads = None if threads is None else whole_number("threads", threads, 1)
        self.deadline = deadline

    @property
    def name(self) -> str:
        """What the command line calls it."""
        return "openvino"

    def available(self) -> Availability:
        """Whether OpenVINO is installed; it is not imported to find out."""
        if find_spec("openvino") is None:
            return Availability(
                ready=False, reason='OpenVINO is not installed. Install it with "pip install cos-export[openvino]".'
            )
        return Availability(ready=True, version=f"openvino {metadata.version('openvino')}")

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

        Fewer steps than the graph has are cut from a whole run.

        Raises:
            InputError: The images, steps or states do not fit the graph.
            BundleError: The bundle has no readable ONNX graph.
            UnavailableError: OpenVINO is not there.
            TargetError: OpenVINO failed, or was not done by the deadline.
        """
        left = seconds_left(self.deadline)
        steps = check_steps(steps, bundle.network)
        array = graph_images(bundle.network, images, steps)
        state = self.available()
        if not state.ready:
            raise UnavailableError(state.reason)
        graph = _graph(bundle, given=states is not None)
        feeds = {"images": array, **_state_feeds(bundle, graph, states, len(array))}
        compiled = self._compiled(bundle, [name for name in feeds if name != "images"], record_spikes)
        rho = _presimulated(graph) if states is None else 0
        names = [output.get_any_name() for output in compiled.outputs]
        known = int(compiled.output("logits").get_partial_shape()[0].get_length())
        if steps > known:
            raise InputError(
                f"The bundle's ONNX graph has {known} steps, and {steps} were asked for. "
                f"Export it again with --steps {steps}."
            )
        plenty = plenty_of_seconds(bundle.network, min(self.batch_size, len(array)), known)
        recording = Recording(bundle.network, len(array), steps, spikes=record_spikes, states=rho > 0)
        for start in range(0, len(array), self.batch_size):
            progress("running in OpenVINO", start, len(array))
            part = {name: value[start : start + self.batch_size] for name, value in feeds.items()}
            seconds = plenty if self.deadline is None else max(left(), 0.0)
            try:
                values = _inferred(compiled, part, seconds)
            except TimeoutError as error:
                allowed = f"{plenty:g} s for a batch" if self.deadline is None else f"{self.deadline:g} s"
                raise TargetError(
                    f"OpenVINO was not done within {allowed}: {start} of {len(array)} samples were. Allow it more with "
                    "deadline= (--deadline on the command line), or give it fewer samples or steps."
                ) from error
            except RuntimeError as error:
                raise TargetError(f"OpenVINO failed: {error}") from error
            found = dict(zip(names, values, strict=True))
            masks = {
                name: value.astype(bool) for name, value in found.items() if name.startswith(("spikes/", "silent/"))
            }
            trace = trace_of(bundle.network, found | masks, per_sample=rho > 0)
            spikes = {name: value[:steps] for name, value in trace.spikes.items()}
            recording.add(Trace(logits=trace.logits[:steps], spikes=spikes, rho=rho, states=trace.states))
        progress("running in OpenVINO", len(array), len(array))
        trace = recording.trace()
        return trace if states is None else replace(trace, states=states)

    def presimulates(self, bundle: Bundle) -> bool:
        """Whether the bundle's graph sets each sample's states by itself.

        Raises:
            BundleError: The bundle has no readable ONNX graph.
        """
        return _presimulated(_graph(bundle, given=False)) > 0

    def _compiled(self, bundle: Bundle, given: list[str], record_spikes: bool) -> openvino.CompiledModel:
        graph = _graph(bundle, given=bool(given))
        openvino = _imported()
        options: dict[str, Any] = dict(_EXACT)
        if self.threads is not None:
            options["INFERENCE_NUM_THREADS"] = self.threads
        try:
            core = openvino.Core()
            # A graph that was cut at its states is in memory alone.
            cut = bool(given) and _presimulated(graph) > 0
            model = core.read_model(_whole(graph, bundle) if cut else str(bundle.onnx_path))
            for name in () if cut else given:
                _make_input(model, name)
            if not record_spikes:
                model = openvino.Model([model.output("logits")], model.get_parameters())
            return core.compile_model(model, "CPU", options)
        except RuntimeError as error:
            raise TargetError(f"OpenVINO cannot load {bundle.onnx_path}: {error}") from error


def _imported() -> Any:
    """OpenVINO, without the package that would tell its maker what is converted: it has a stub for that."""
    unheard = "openvino_telemetry"
    if unheard in sys.modules:
        return import_module("openvino")
    sys.modules[unheard] = None  # type: ignore[assignment]
    try:
        return import_module("openvino")
    finally:
        del sys.modules[unheard]


def _graph(bundle: Bundle, *, given: bool) -> onnx.ModelProto:
    """The graph of a bundle, with the states of each sample as inputs if they are given."""
    try:
        model = read_onnx(bundle.onnx_path)  # which refuses what OpenVINO should not be handed
    except InputError as error:
        raise BundleError(str(error)) from error
    return with_states_given(model) if given else model


def _presimulated(graph: onnx.ModelProto) -> int:
    """The extra steps that the graph itself spends on each sample."""
    return next((presimulated_steps(entry.value) for entry in graph.metadata_props if entry.key == PRESIMULATED), 0)


def _whole(graph: onnx.ModelProto, bundle: Bundle) -> bytes:
    """A graph with the arrays that lie beside it."""
    from onnx.external_data_helper import load_external_data_for_model

    load_external_data_for_model(graph, str(bundle.path))
    return bytes(graph.SerializeToString())


def _state_feeds(bundle: Bundle, graph: onnx.ModelProto, states: SampleStates | None, samples: int) -> dict[str, Any]:
    shapes = {
        entry.name: tuple(side.dim_value for side in entry.type.tensor_type.shape.dim[1:])
        for entry in graph.graph.input
    }
    arrays = {entry.name for entry in graph.graph.initializer}
    needed = {name: shape for name, shape in shapes.items() if name not in arrays}
    return state_feeds(bundle.network, needed, shapes, states, samples)


def _make_input(model: openvino.Model, name: str) -> None:
    """Makes an input of an initializer that a run may override, which OpenVINO reads as a constant."""
    from openvino import PartialShape, opset13
    from openvino.utils import replace_node

    constant = next(each for each in model.get_ops() if each.get_friendly_name() == name)
    shape = PartialShape([-1, *list(constant.get_output_shape(0))[1:]])
    parameter = opset13.parameter(shape, constant.get_output_element_type(0), name)
    parameter.get_output_tensor(0).set_names({name})
    replace_node(constant, parameter)
    model.add_parameters([parameter])
    model.validate_nodes_and_infer_types()


def _inferred(compiled: openvino.CompiledModel, feeds: dict[str, Any], seconds: float) -> list[Any]:
    """The outputs of a graph.

    Raises:
        TimeoutError: It took longer than it may.
    """
    if seconds <= 0:
        raise TimeoutError
    end = time.monotonic() + seconds
    request = compiled.create_infer_request()
    request.start_async(feeds)
    try:
        while not request.wait_for(int(1000 * _LOOK)):
            if time.monotonic() >= end:
                raise TimeoutError
    except BaseException:
        request.cancel()
        raise
    return [request.get_tensor(output).data.copy() for output in compiled.outputs]
