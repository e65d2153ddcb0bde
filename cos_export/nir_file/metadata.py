"""The metadata that NIR has no field for: schema "cos-export/1".

Flat keys whose values are strings, numbers or arrays, because None, lists of text and text arrays do not
survive a NIR file. On each spiking node:

    v_init               float32, of v_threshold's shape and unit
    reset_mechanism      "subtract" or "value"
    spike_condition      ">=" or ">"
    v_bias               float32 (steps, channels), if there is one
    silent               uint8 0 or 1, of v_threshold's shape, if there is one
    levels               L of the quantised activation, if the layer stands for one
    integer_scale        float64 (channels,), what 1 stands for in a network of integers
    window_opens         in a layer-wise graph with num_timesteps: the step after which it fires, for as many steps

and on the graph `schema`, `num_timesteps` (T to run), `rho`, `method`, `calibration` (the method's record, its name and
every option, as JSON), `calibrated_timesteps` (T of the calibration, 0 if made for any), `numerics`, `schedule`
("synchronous", which a graph that says nothing is, or "layerwise"), `input_encoding`, `producer`, the
constants of `CONTRACT`, and for numerics "int8" `input_scale`, `input_minimum`, `input_maximum` and `readout_scale`
(see `cos_export.network.Quantisation`): the graph itself takes and gives integers.
`input_encoding` is "constant", or "constant_then_zero" beside `input_steps`, the steps for which the input is held.
`input_mean`, `input_std` and `class_names` are said at `cos_export.nir_file.input_metadata`.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal, cast

import numpy as np
from numpy.typing import NDArray

from cos_export.datasets import Normalisation
from cos_export.errors import NetworkError
from cos_export.network import FloatArray, NeuronSpec, Quantisation, SpikingNetwork
from cos_export.network.fields import numbers
from cos_export.network.schedule import SCHEDULES, Schedule, windows
from cos_export.nir_file.input_metadata import INPUT_KEYS, input_metadata, read_class_names, read_normalisation
from cos_export.reading.limits import MAX_STEPS
from cos_export.version import __version__

__all__ = [
    "CONTRACT",
    "GRAPH_KEYS",
    "NODE_KEYS",
    "QUANTISATION_KEYS",
    "SCHEMA",
    "GraphFacts",
    "NeuronFacts",
    "graph_metadata",
    "neuron_metadata",
    "others",
    "producer",
    "read_graph_metadata",
    "read_neuron_metadata",
    "window_metadata",
]

SCHEMA = "cos-export/1"

CONTRACT: Mapping[str, str | float] = {
    "readout": "mean",
    "update_order": "charge,fire,reset",
    "dt": 1.0,
    "spike_amplitude": 1.0,
    "v_init_encoding": "metadata",
}
"""What is so in every network: a file of our schema that says otherwise cannot be run."""

_HELD, _HELD_AT_FIRST = "constant", "constant_then_zero"

QUANTISATION_KEYS = ("input_scale", "input_minimum", "input_maximum", "readout_scale")
GRAPH_KEYS = frozenset(
    {
        *("schema", "num_timesteps", "rho", "method", "calibration", "calibrated_timesteps", "numerics", "schedule"),
        *("input_encoding", "input_steps", "producer"),
        *CONTRACT,
        *QUANTISATION_KEYS,
        *INPUT_KEYS,
    }
)
MADE_FOR_ANY_STEPS = frozenset({"half", "opi", "none"})
"""Static methods of before, when files said one T alone, whose potentials are made for no T."""
NODE_KEYS = frozenset(
    {"v_init", "reset_mechanism", "spike_condition", "v_bias", "silent", "levels", "integer_scale", "window_opens"}
)


@dataclass(frozen=True)
class GraphFacts:
    """What a graph's metadata says.

    Attributes:
        ours: Whether it follows our schema; otherwise all but `dt` are defaults.
        num_timesteps: T to run, or None.
        rho: Extra steps per sample.
        method: The calibration method; "none" for a graph from elsewhere.
        calibration: The method's record, or None if the file has none.
        calibrated_timesteps: T of the calibration, or None if it was made for any.
        numerics: "float32" or "int8".
        quantisation: What the integers stand for, if there are any.
        schedule: "synchronous" or "layerwise".
        input_steps: The steps for which the input is held, or None if it is for all.
        dt: Length of a step in the unit of NIR's r, or None if not said.
        normalisation: What pixels are normalised with before they reach the Input, if it is said.
        class_names: What the entries of the readout are called, if it is said.
    """

    ours: bool = False
    num_timesteps: int | None = None
    rho: int = 0
    method: str = "none"
    calibration: Mapping[str, Any] | None = None
    calibrated_timesteps: int | None = None
    numerics: Literal["float32", "int8"] = "float32"
    quantisation: Quantisation | None = None
    schedule: Schedule = "synchronous"
    input_steps: int | None = None
    dt: float | None = None
    normalisation: Normalisation | None = None
    class_names: tuple[str, ...] | None = None


@dataclass(frozen=True)
class NeuronFacts:
    """What a spiking node's metadata says; None where it says nothing. Fields as in `NeuronSpec`."""

    v_init: FloatArray | None = None
    reset: Literal["subtract", "value"] | None = None
    condition: Literal[">=", ">"] | None = None
    bias: FloatArray | None = None
    silent: NDArray[np.bool_] | None = None
    levels: int | None = None
    scale: NDArray[np.float64] | None = None
    window_opens: int | None = None


def producer() -> str:
    """The name and version of this package, as written into files."""
    return f"cos-export {__version__}"


def graph_metadata(network: SpikingNetwork) -> dict[str, str | int | float | FloatArray]:
    """What is written on the graph."""
    steps = {} if network.num_timesteps is None else {"num_timesteps": int(network.num_timesteps)}
    return {
        "schema": SCHEMA,
        **steps,
        "rho": int(network.rho),
        "method": network.method,
        **({} if network.calibration is None else {"calibration": json.dumps(dict(network.calibration))}),
        "calibrated_timesteps": int(network.calibrated_timesteps or 0),
        "numerics": network.numerics,
        "schedule": network.schedule,
        **_input_encoding(network),
        **({} if network.quantisation is None else asdict(network.quantisation)),
        **CONTRACT,
        **input_metadata(network),
        "producer": producer(),
    }


def _input_encoding(network: SpikingNetwork) -> dict[str, str | int]:
    """How long the input is held; a reader that knows nothing of `input_steps` refuses the word."""
    if network.input_steps is None:
        return {"input_encoding": _HELD}
    return {"input_encoding": _HELD_AT_FIRST, "input_steps": int(network.input_steps)}


def window_metadata(network: SpikingNetwork) -> dict[str, dict[str, int]]:
    """What is written on each spiking node about when it fires, by name: nothing unless the graph is layer-wise."""
    if network.schedule == "synchronous" or network.num_timesteps is None:
        return {name: {} for name in network.layers}
    return {name: {"window_opens": on} for name, on in windows(network, network.num_timesteps).opens.items()}


def neuron_metadata(spec: NeuronSpec) -> dict[str, Any]:
    """What is written on a spiking node."""
    found: dict[str, Any] = {
        "v_init": np.asarray(spec.v_init, np.float32),
        "reset_mechanism": spec.reset,
        "spike_condition": spec.condition,
    }
    if spec.bias is not None:
        found["v_bias"] = np.asarray(spec.bias, np.float32)
    if spec.silent is not None:
        found["silent"] = np.asarray(spec.silent, np.uint8)
    if spec.levels is not None:
        found["levels"] = int(spec.levels)
    if spec.scale is not None:
        found["integer_scale"] = np.asarray(spec.scale, np.float64)
    return found


def others(metadata: Mapping[str, Any], ours: Collection[str]) -> dict[str, Any]:
    """The entries that are not `ours` and that a NIR file can hold; the rest is left out."""
    return {key: value for key, value in metadata.items() if key not in ours and _storable(key, value)}


def _storable(key: object, value: Any) -> bool:
    if not isinstance(key, str) or key in ("", ".") or "/" in key or "\0" in key:
        return False
    if isinstance(value, str):
        return "\0" not in value
    if isinstance(value, Mapping):
        return all(_storable(inner, item) for inner, item in value.items())
    if isinstance(value, (bool, int, float, np.number, np.bool_, np.ndarray)):
        return np.asarray(value).dtype.kind in "biuf"
    return False


def read_graph_metadata(metadata: Mapping[str, Any]) -> GraphFacts:
    """Reads a graph's metadata.

    Raises:
        NetworkError: The schema is a later one of ours, or an entry has a value that it cannot have.
    """
    dt = metadata.get("dt")
    schema = metadata.get("schema")
    if not isinstance(schema, str) or schema != SCHEMA:
        if isinstance(schema, str) and schema.startswith("cos-export/"):
            raise NetworkError(
                f"The graph follows schema {schema!r}, and this is {producer()}, which knows {SCHEMA!r}. "
                "Upgrade cos-export to read it."
            )
        return GraphFacts(dt=None if dt is None else _number("dt", dt))
    for key, value in CONTRACT.items():
        found = _word(key, metadata) if isinstance(value, str) else _number(key, metadata.get(key, value))
        if found not in (None, value):
            raise NetworkError(f"The graph's metadata says {key} = {found!r}, and only {value!r} can be run.")
    numerics = _word("numerics", metadata) or "float32"
    if numerics not in ("float32", "int8"):
        raise NetworkError(f'The graph\'s metadata says numerics = {numerics!r}; known are "float32" and "int8".')
    schedule = _word("schedule", metadata) or "synchronous"
    if schedule not in SCHEDULES:
        raise NetworkError(
            f"The graph's metadata says schedule = {schedule!r}; known are {', '.join(map(repr, SCHEDULES))}."
        )
    steps = metadata.get("num_timesteps")
    steps = None if steps is None else _integer("num_timesteps", steps, 1)
    rho, method = _integer("rho", metadata.get("rho", 0), 0), _word("method", metadata) or "none"
    return GraphFacts(
        ours=True,
        num_timesteps=steps,
        rho=rho,
        method=method,
        calibration=_record(metadata, method),
        calibrated_timesteps=_calibrated_steps(metadata, steps, rho, method),
        numerics=cast("Literal['float32', 'int8']", numerics),
        quantisation=_quantisation(metadata) if numerics == "int8" else None,
        schedule=schedule,
        input_steps=_input_steps(metadata),
        dt=1.0 if dt is None else _number("dt", dt),
        normalisation=read_normalisation(metadata),
        class_names=read_class_names(metadata),
    )


def read_neuron_metadata(metadata: Mapping[str, Any]) -> NeuronFacts:
    """Reads a spiking node's metadata.

    Raises:
        NetworkError: An entry has a value that it cannot have. The caller knows the node's name.
    """
    reset, condition = _word("reset_mechanism", metadata), _word("spike_condition", metadata)
    if reset not in (None, "subtract", "value"):
        raise NetworkError(f'its metadata says reset_mechanism = {reset!r}; known are "subtract" and "value".')
    if condition not in (None, ">=", ">"):
        raise NetworkError(f'its metadata says spike_condition = {condition!r}; known are ">=" and ">".')
    silent = metadata.get("silent")
    if silent is not None and not np.isin(numbers("its metadata's silent", silent), (0, 1)).all():
        raise NetworkError("its metadata has a silent mask with values other than 0 and 1.")
    levels, opens = metadata.get("levels"), metadata.get("window_opens")
    scale = _numbers("integer_scale", metadata.get("integer_scale"))
    return NeuronFacts(
        v_init=_floats("v_init", metadata.get("v_init")),
        reset=cast("Literal['subtract', 'value'] | None", reset),
        condition=cast("Literal['>=', '>'] | None", condition),
        bias=_floats("v_bias", metadata.get("v_bias")),
        silent=None if silent is None else np.asarray(silent).astype(np.bool_),
        levels=None if levels is None else _integer("levels", levels, 1),
        scale=None if scale is None else scale.astype(np.float64),
        window_opens=None if opens is None else _integer("window_opens", opens, 0, 2**31),
    )


def _input_steps(metadata: Mapping[str, Any]) -> int | None:
    encoding, shown = _word("input_encoding", metadata) or _HELD, metadata.get("input_steps")
    if encoding not in (_HELD, _HELD_AT_FIRST):
        raise NetworkError(
            f"The graph's metadata says input_encoding = {encoding!r}, and only {_HELD!r} and {_HELD_AT_FIRST!r} can "
            "be run."
        )
    if (encoding == _HELD_AT_FIRST) != (shown is not None):
        raise NetworkError(
            f"The graph's metadata says input_encoding = {encoding!r} and {'no ' if shown is None else ''}input_steps: "
            f"{_HELD_AT_FIRST!r} and input_steps belong together."
        )
    return None if shown is None else _integer("input_steps", shown, 1)


def _record(metadata: Mapping[str, Any], method: str) -> Mapping[str, Any] | None:
    text = _word("calibration", metadata)
    if text is None:
        return None
    try:
        record = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise NetworkError(f"calibration in the graph's metadata is not JSON: {error}") from error
    if not isinstance(record, dict) or record.get("name") != method:
        raise NetworkError(f"calibration in the graph's metadata is not the record of the method {method!r}.")
    return record


def _calibrated_steps(metadata: Mapping[str, Any], steps: int | None, rho: int, method: str) -> int | None:
    if "calibrated_timesteps" in metadata:
        return _integer("calibrated_timesteps", metadata["calibrated_timesteps"], 0) or None
    return None if rho or method in MADE_FOR_ANY_STEPS else steps


def _quantisation(metadata: Mapping[str, Any]) -> Quantisation:
    missing = [key for key in QUANTISATION_KEYS if key not in metadata]
    if missing:
        raise NetworkError(
            f"The graph's metadata says numerics = 'int8', and lacks {', '.join(missing)}. A tool that copied the "
            "graph has dropped them: use the original file."
        )
    return Quantisation(
        input_scale=_number("input_scale", metadata["input_scale"]),
        input_minimum=_integer("input_minimum", metadata["input_minimum"], -128),
        input_maximum=_integer("input_maximum", metadata["input_maximum"], 1),
        readout_scale=_number("readout_scale", metadata["readout_scale"]),
    )


def _floats(key: str, value: Any) -> FloatArray | None:
    array = _numbers(key, value)
    return None if array is None else array.astype(np.float32)


def _numbers(key: str, value: Any) -> NDArray[Any] | None:
    if value is None:
        return None
    return numbers(f"its metadata's {key}", value)


def _word(key: str, metadata: Mapping[str, Any]) -> str | None:
    value = metadata.get(key)
    if value is not None and not isinstance(value, str):
        raise NetworkError(f"{key} = {value!r} in the metadata; it must be a string.")
    return value


def _number(key: str, value: Any) -> float:
    array = np.asarray(value)
    if array.dtype.kind not in "iuf" or array.size != 1:
        raise NetworkError(f"{key} = {value!r} in the metadata; it must be a number.")
    if not np.isfinite(array).all():
        raise NetworkError(f"{key} = {value!r} in the metadata; it must be finite.")
    return float(array.item())


def _integer(key: str, value: Any, least: int, most: int = MAX_STEPS) -> int:
    number = _number(key, value)
    if not number.is_integer() or not least <= number <= most:
        raise NetworkError(f"{key} = {value!r} in the metadata; it must be a whole number from {least} to {most}.")
    return int(number)
