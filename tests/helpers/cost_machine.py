"""docs/costs.md as a machine: it runs one sample in float64 and counts each event when it happens, matrix by matrix.

Nothing of the package but its data classes; the matrices are those of `operation_reference.taps`.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from typing import Any

import nir
import numpy as np
from operation_reference import taps

from cos_export.network import NeuronSpec, SpikingNetwork

Array = Any
SYNAPSES = (nir.Conv1d, nir.Conv2d, nir.Affine, nir.Linear, nir.Scale)
POOLS = (nir.SumPool2d, nir.AvgPool2d)


def _size(shape: Any) -> int:
    return int(np.prod(shape))


def in_step(spec: NeuronSpec, m: Array) -> tuple[Array, Array]:
    """What neurons that have been charged to m fire, and the potential that is left: (..., neurons) each."""
    theta = np.asarray(spec.threshold, np.float64).ravel()
    spikes = m > theta if spec.condition == ">" else m >= theta
    reset = m - theta * spikes if spec.reset == "subtract" else np.where(spikes, np.ravel(np.asarray(spec.v_reset)), m)
    return spikes, reset


def in_window(spec: NeuronSpec, m: Array, steps: int) -> Array:
    """How often neurons that have integrated m fire in a window: (..., neurons)."""
    ratio = m / np.asarray(spec.threshold, np.float64).ravel()
    return np.clip(np.ceil(ratio) - 1 if spec.condition == ">" else np.floor(ratio), 0, steps)


class Machine:
    """A network as matrices, and what arrives at each node: "constant", "spikes" or "graded"."""

    def __init__(self, network: SpikingNetwork) -> None:
        self.network, self.nodes = network, dict(network.graph.nodes)
        self.sources, feeds = defaultdict(list), defaultdict(list)
        for source, target in network.graph.edges:
            self.sources[target].append(source)
            feeds[source].append(target)
        self.order: list[str] = []
        while len(self.order) < len(self.nodes):
            self.order += [
                name
                for name in self.nodes
                if name not in self.order and all(source in self.order for source in self.sources[name])
            ]
        self.layers = [name for name in self.order if isinstance(self.nodes[name], nir.IF)]
        self.output = next(name for name in self.order if isinstance(self.nodes[name], nir.Output))
        self.matrix: dict[str, Array] = {}
        self.bias: dict[str, Array] = {}
        self.arriving: dict[str, str] = {}
        self.leaving: dict[str, str] = {}
        self.rest: dict[str, Array] = {}
        """What constant nodes send of an input of zeros."""
        for name in self.order:
            self._take(name)
        self.feeding: set[str] = set()
        for name in reversed(self.order):
            if any(target in self.layers or target in self.feeding for target in feeds[name]):
                self.feeding.add(name)

    def _take(self, name: str) -> None:
        node, shapes = self.nodes[name], self.network.shapes
        if isinstance(node, nir.Input):
            self.leaving[name], self.rest[name] = "constant", np.zeros(_size(shapes[name]))
            return
        kinds = {self.leaving[source] for source in self.sources[name]}
        kind = kinds.pop() if len(kinds) == 1 else "graded"
        self.arriving[name] = self.leaving[name] = kind
        if isinstance(node, (nir.Output, nir.IF)):
            self.leaving[name] = "spikes"
            return
        if kind == "spikes" and isinstance(node, SYNAPSES):
            self.leaving[name] = "graded"
        shape, size = shapes[self.sources[name][0]], _size(shapes[name])
        self.matrix[name] = np.zeros((size, _size(shape)))
        for place, out, weight in taps(node, shape):
            at = np.ravel_multi_index(out, shapes[name]), np.ravel_multi_index(place, shape)
            self.matrix[name][at] += weight
        bias = np.asarray(0.0 if getattr(node, "bias", None) is None else node.bias, np.float64)
        self.bias[name] = np.broadcast_to(bias, shapes[name][:1]).repeat(size // shapes[name][0])
        if kind == "constant":
            rest = sum(self.rest[source] for source in self.sources[name])
            self.rest[name] = self.matrix[name] @ rest + self.bias[name]

    def step_bias(self, name: str, t: int) -> Array:
        spec = self.network.neurons[name]
        table = spec.bias[t] if spec.bias is not None and t < len(spec.bias) else np.zeros(spec.shape[0])
        return np.asarray(table, np.float64).repeat(_size(spec.shape) // spec.shape[0])

    def count(self, images: Array, steps: int, method: str = "", rho: int = 0, iterations: int = 1) -> dict[str, Any]:
        """The mean over the images, for one: the fields of `Operations` by name; and the spikes, by layer."""
        events: Counter[Any] = Counter()
        runs = []
        for image in images:
            sample = _Sample(self, image, steps)
            runs.append(sample.run(method, rho, iterations))
            events.update(sample.events)

        def mean(kind: str, *whens: str) -> float:
            whens = whens or ("run", "beside")
            return sum(n for (when, what, _), n in events.items() if what == kind and when in whens) / len(images)

        slots = steps * sum(_size(self.network.shapes[name]) for name in self.layers)
        by_node: defaultdict[str, float] = defaultdict(float)
        for (_, what, name), n in events.items():
            if what in ("ac", "mac"):
                by_node[name] += n / len(images)
        return {
            "spikes": mean("spike"),
            "effective_acs": mean("ac"),
            "effective_macs": mean("mac"),
            "effective_macs_every_step": mean("mac") + mean("again"),
            "pooling_additions": mean("pool"),
            "bias_additions": mean("bias"),
            "presimulation": mean("ac", "beside") + mean("mac", "beside"),
            "neuron_updates": mean("update"),
            "activation_sparsity": 1 - mean("spike", "run") / slots,
            "by_node": {name: n for name, n in by_node.items() if n},
            "trains": {name: np.stack([run[name][:steps] for run in runs], 1) for name in self.layers},
        }

    def artificial(
        self, images: Array, trains: dict[str, Array], steps: int
    ) -> tuple[dict[str, int], dict[str, float]]:
        """By synapse: weights other than 0, and their products with activations other than 0, for one image."""
        synapses = [name for name in self.matrix if isinstance(self.nodes[name], SYNAPSES)]
        macs = {name: int(np.count_nonzero(self.matrix[name])) for name in synapses}
        effective: defaultdict[str, float] = defaultdict(float)
        for number, image in enumerate(images):
            frames = image.ndim > len(self.network.input_shape)
            values = {self.network.input_name: (image[:steps].mean(0) if frames else image).ravel()}
            for name in self.order[1:]:
                arriving = sum(values[source] for source in self.sources[name])
                if name in self.layers:
                    values[name] = trains[name][:, number].mean(0)
                elif name != self.output:
                    values[name] = self.matrix[name] @ arriving + self.bias[name]
                    if name in macs:
                        effective[name] += _met(self.matrix[name], arriving) / len(images)
        return macs, effective


def _met(matrix: Array, values: Array) -> int:
    return int((matrix != 0).sum(0) @ (values != 0))


class _Sample:
    """One image in a machine."""

    def __init__(self, machine: Machine, image: Array, steps: int) -> None:
        self.machine, self.image, self.steps = machine, np.asarray(image, np.float64), steps
        self.events: Counter[Any] = Counter()

    def run(self, method: str, rho: int, iterations: int) -> dict[str, Array]:
        machine, network = self.machine, self.machine.network
        specs = {name: network.neurons[name] for name in machine.layers}
        theta = {name: np.asarray(spec.threshold, np.float64).ravel() for name, spec in specs.items()}
        start = {name: np.asarray(spec.v_init, np.float64).ravel() for name, spec in specs.items()}
        silent = {name: np.zeros(spec.shape) if spec.silent is None else spec.silent for name, spec in specs.items()}
        if method == "srp":
            first: dict[str, Array] = {}
            wires = _Wires(self, first, 0)
            for name in machine.layers:
                start[name] = theta[name] / 2
                first[name], potentials = self.fire(wires, name, start[name], rho)
                silent[name] = potentials[-1] <= 1e-3 * theta[name]
                self.events["beside", "spike", name] += int(first[name].sum())
        trains: dict[str, Array] = {}
        wires, before = _Wires(self, trains, self.steps), [_Wires(self, trains, 0) for _ in range(iterations)]
        for name in machine.layers:
            length = self.steps
            if method == "cos":
                start[name] = self.calibrated(before, name, start[name], theta[name], rho)
                # Those above are calibrated on rho steps of what it fires.
                length = max(length, rho) if name in machine.feeding else length
            fired, _ = self.fire(wires, name, start[name], length)
            trains[name] = fired & ~np.ravel(silent[name]).astype(bool)
            self.events["run", "spike", name] += int(trains[name][: self.steps].sum())
            self.events["beside", "spike", name] += int(trains[name][self.steps :].sum())
        for t in range(self.steps):
            wires.into(machine.output, t)
        return trains

    def calibrated(self, before: list[_Wires], name: str, start: Array, theta: Array, rho: int) -> Array:
        """v_init as COS shifts it."""
        residual: Array = None
        count: Array = None
        for k, wires in enumerate(before, 1):
            fired, potentials = self.fire(wires, name, start, rho)
            if k == 1:
                residual, count = potentials[-1], fired.sum(0)
            low = np.where(fired, potentials, np.inf).min(0)
            high = np.where(fired, -np.inf, potentials).max(0)
            high = np.where(np.isinf(high), -1000 * theta, high)
            down = (residual < -(k - 1) * theta) & (count > k - 1) & np.isfinite(low)
            less = np.where(down, np.maximum(theta, low + theta / 1000), 0)
            more = np.where(residual >= k * theta, np.maximum(theta, theta + theta / 1000 - high), 0)
            start = start - less + more
        return start

    def fire(self, wires: _Wires, name: str, start: Array, steps: int) -> tuple[Array, Array]:
        """Spikes and potentials after the reset, (steps, neurons)."""
        machine, spec = self.machine, self.machine.network.neurons[name]
        theta = np.asarray(spec.threshold, np.float64).ravel()
        v, fired, potentials = start, [], []
        currents = []
        for t in range(steps):
            beta = machine.step_bias(name, t)
            currents.append(wires.into(name, t) + beta)
            self.events[wires.when(t), "bias", name] += int(np.count_nonzero(beta))
            self.events[wires.when(t), "update", name] += theta.size
        if machine.network.schedule == "layerwise":
            m = start + sum(currents)
            n = in_window(spec, m, steps)
            return np.stack([n > t for t in range(steps)]), m
        for current in currents:
            spikes, v = in_step(spec, v + current)
            fired.append(spikes)
            potentials.append(v)
        return np.stack(fired), np.stack(potentials)


class _Wires:
    """What lies on the wires at each step, computed and counted when it is first asked for.

    Args:
        sample: Whose events it counts.
        trains: What layers fire.
        steps: Those that are the run's own; all others are for the sake of the calibration.
    """

    def __init__(self, sample: _Sample, trains: dict[str, Array], steps: int) -> None:
        self.sample, self.trains, self.steps = sample, trains, steps
        self.known: dict[Any, Any] = {}

    def when(self, t: int) -> str:
        return "run" if t < self.steps else "beside"

    def into(self, name: str, t: int) -> Array:
        """What arrives at neurons or the readout."""
        return self._arriving(name, t)[0]

    def _arriving(self, name: str, t: int) -> tuple[Array, Array | None]:
        machine, events = self.sample.machine, self.sample.events
        parts = [self._leaving(source, t) for source in machine.sources[name]]
        constant = [source for source in machine.sources[name] if machine.leaving[source] == "constant"]
        waits = name in machine.layers or name == machine.output or machine.arriving[name] != "constant"
        if constant and waits and not self._frames and (name, t, "constant") not in self.known:
            self.known[name, t, "constant"] = True
            rest: Array = sum(machine.rest[source] for source in constant)
            events[self.when(t), "bias", name] += rest.size if self._held(t) else int(np.count_nonzero(rest))
        fired: list[Array] = [part for _, part in parts]
        spikes = None if any(part is None for part in fired) else sum(fired)
        return sum(value for value, _ in parts), spikes

    def _leaving(self, name: str, t: int) -> tuple[Array, Array | None]:
        """The value, and of spikes how many come from each place."""
        if (name, t) not in self.known:
            machine, image = self.sample.machine, self.sample.image
            if isinstance(machine.nodes[name], nir.Input):
                shown = image[t] if self._frames else image * self._held(t)
                self.known[name, t] = shown.ravel(), None
            elif name in machine.layers:
                self.known[name, t] = (self.trains[name][t].astype(float),) * 2
            else:
                self.known[name, t] = self._through(name, t)
        return self.known[name, t]  # type: ignore[no-any-return]

    def _through(self, name: str, t: int) -> tuple[Array, Array | None]:
        machine, events = self.sample.machine, self.sample.events
        matrix, bias = machine.matrix[name], machine.bias[name]
        values, spikes = self._arriving(name, t)
        through = None if spikes is None else (matrix != 0) @ spikes
        met = _met(matrix, values) if through is None else int(through.sum())
        kind = "mac" if through is None else "ac"
        if isinstance(machine.nodes[name], POOLS):
            kind = "pool"
        once = machine.arriving[name] == "constant" and not self._frames
        if isinstance(machine.nodes[name], (*POOLS, *SYNAPSES)):
            if not once or (self.when(t) == "run" and t == 0):
                events[self.when(t), kind, name] += met
            elif kind == "mac" and self._held(t):
                events[self.when(t), "again", name] += met
        if not once:
            events[self.when(t), "bias", name] += int(np.count_nonzero(bias))
        return matrix @ values + bias, through if machine.leaving[name] == "spikes" else None

    @property
    def _frames(self) -> bool:
        return bool(self.sample.image.ndim > len(self.sample.machine.network.input_shape))

    def _held(self, t: int) -> bool:
        held = self.sample.machine.network.input_steps
        return held is None or t < held
