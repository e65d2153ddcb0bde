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
constants of `CONTRACT`, and for integers `input_scale`, `input_minimum`, `input_maximum`, `readout_scale`,
`weight_bits` and `input_bits` (see `cos_export.network.Quantisation`): the graph itself takes and gives integers.
`input_encoding` is "constant", or "constant_then_zero" beside `input_steps`, the steps for which the input is held, or
"frames": one input for each step.
`input_mean`, `input_std`, `class_names`, `left_out`, `readout_shape`: see `cos_export.nir_file.input_metadata`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from cos_export.datasets import Normalisation
from cos_export.errors import NetworkError
from cos_export.network import FloatArray, Quantisation, SpikingNetwork
from cos_export.network.schedule import SCHEDULES, Schedule
from cos_export.network.spiking_network import InputEncoding
from cos_export.nir_file.input_metadata import (
    INPUT_KEYS,
    input_metadata,
    read_class_names,
    read_left_out,
    read_normalisation,
    read_readout_shape,
)
from cos_export.nir_file.metadata_values import integer, number, word
from cos_export.numerics import FLOAT32, INPUT_BITS, NUMERICS, signed_range
from cos_export.version import __version__

__all__ = [
    "CONTRACT",
    "GRAPH_KEYS",
    "QUANTISATION_KEYS",
    "SCHEMA",
    "GraphFacts",
    "graph_metadata",
    "producer",
    "read_graph_metadata",
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

_HELD, _HELD_AT_FIRST, _FRAMES = "constant", "constant_then_zero", "frames"

QUANTISATION_KEYS = ("input_scale", "input_minimum", "input_maximum", "readout_scale")
WIDTH_KEYS = ("weight_bits", "input_bits")
GRAPH_KEYS = frozenset(
    {
        *("schema", "num_timesteps", "rho", "method", "calibration", "calibrated_timesteps", "numerics", "schedule"),
        *("input_encoding", "input_steps", "producer"),
        *CONTRACT,
        *QUANTISATION_KEYS,
        *WIDTH_KEYS,
        *INPUT_KEYS,
    }
)
MADE_FOR_ANY_STEPS = frozenset({"half", "opi", "none"})
"""Static methods of before, when files said one T alone, whose potentials are made for no T."""


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
        quantisation: What the integers stand for, if there are any.
        schedule: "synchronous" or "layerwise".
        input_steps: The steps for which the input is held, or None if it is for all.
        input_encoding: "constant" or "frames".
        dt: Length of a step in the unit of NIR's r, or None if not said.
        normalisation: What pixels are normalised with before they reach the Input, if it is said.
        class_names: What the entries of the readout are called, if it is said.
        left_out: What the module does to its logits at its end, and the network does not.
        readout_shape: The shape that the module gives what the readout has as one axis, if it is another.
    """

    ours: bool = False
    num_timesteps: int | None = None
    rho: int = 0
    method: str = "none"
    calibration: Mapping[str, Any] | None = None
    calibrated_timesteps: int | None = None
    quantisation: Quantisation | None = None
    schedule: Schedule = "synchronous"
    input_steps: int | None = None
    input_encoding: InputEncoding = "constant"
    dt: float | None = None
    normalisation: Normalisation | None = None
    class_names: tuple[str, ...] | None = None
    left_out: tuple[str, ...] = ()
    readout_shape: tuple[int, ...] | None = None


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
        return {"input_encoding": network.input_encoding}
    return {"input_encoding": _HELD_AT_FIRST, "input_steps": int(network.input_steps)}


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
        return GraphFacts(dt=None if dt is None else number("dt", dt))
    for key, value in CONTRACT.items():
        actual = word(key, metadata) if isinstance(value, str) else number(key, metadata.get(key, value))
        if actual not in (None, value):
            raise NetworkError(f"The graph's metadata says {key} = {actual!r}, and only {value!r} can be run.")
    of_integers = [key for key in QUANTISATION_KEYS if key in metadata]
    if of_integers and "numerics" not in metadata:
        raise NetworkError(
            f"The graph's metadata has {of_integers[0]}, which networks of integers have, and no numerics. A tool that "
            "copied the graph has dropped it: use the original file."
        )
    numerics = word("numerics", metadata) or FLOAT32
    if numerics not in NUMERICS:
        known = " and ".join(f'"{name}"' for name in NUMERICS)
        raise NetworkError(f"The graph's metadata says numerics = {numerics!r}; known are {known}.")
    if of_integers and NUMERICS[numerics] is None:
        raise NetworkError(
            f"The graph's metadata has {of_integers[0]}, which networks of integers have, and says numerics = "
            f"{numerics!r}: its weights are integers, or they are not. Use the original file."
        )
    schedule = word("schedule", metadata) or "synchronous"
    if schedule not in SCHEDULES:
        raise NetworkError(
            f"The graph's metadata says schedule = {schedule!r}; known are {', '.join(map(repr, SCHEDULES))}."
        )
    steps = metadata.get("num_timesteps")
    steps = None if steps is None else integer("num_timesteps", steps, 1)
    rho, method = integer("rho", metadata.get("rho", 0), 0), word("method", metadata) or "none"
    return GraphFacts(
        ours=True,
        num_timesteps=steps,
        rho=rho,
        method=method,
        calibration=_record(metadata, method),
        calibrated_timesteps=_calibrated_steps(metadata, steps, rho, method),
        quantisation=_quantisation(metadata, numerics),
        schedule=schedule,
        input_steps=_input_steps(metadata),
        input_encoding="frames" if word("input_encoding", metadata) == _FRAMES else "constant",
        dt=1.0 if dt is None else number("dt", dt),
        normalisation=read_normalisation(metadata),
        class_names=read_class_names(metadata),
        left_out=read_left_out(metadata),
        readout_shape=read_readout_shape(metadata),
    )


def _input_steps(metadata: Mapping[str, Any]) -> int | None:
    encoding, shown = word("input_encoding", metadata) or _HELD, metadata.get("input_steps")
    if encoding not in (_HELD, _HELD_AT_FIRST, _FRAMES):
        raise NetworkError(
            f"The graph's metadata says input_encoding = {encoding!r}, and only {_HELD!r}, {_HELD_AT_FIRST!r} and "
            f"{_FRAMES!r} can be run."
        )
    if (encoding == _HELD_AT_FIRST) != (shown is not None):
        raise NetworkError(
            f"The graph's metadata says input_encoding = {encoding!r} and {'no ' if shown is None else ''}input_steps: "
            f"{_HELD_AT_FIRST!r} and input_steps belong together."
        )
    return None if shown is None else integer("input_steps", shown, 1)


def _record(metadata: Mapping[str, Any], method: str) -> Mapping[str, Any] | None:
    text = word("calibration", metadata)
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
        return integer("calibrated_timesteps", metadata["calibrated_timesteps"], 0) or None
    return None if rho or method in MADE_FOR_ANY_STEPS else steps


def _quantisation(metadata: Mapping[str, Any], numerics: str) -> Quantisation | None:
    bits = NUMERICS[numerics]
    if bits is None:
        return None
    missing = [key for key in QUANTISATION_KEYS if key not in metadata]
    if missing:
        raise NetworkError(
            f"The graph's metadata says numerics = {numerics!r}, and lacks {', '.join(missing)}. A tool that copied "
            "the graph has dropped them: use the original file."
        )
    # A file of before says no widths: its input has the usual one, and its numerics say that of its weights.
    widths = {"weight_bits": bits, "input_bits": INPUT_BITS}
    widths = {key: integer(key, metadata.get(key, width), 1) for key, width in widths.items()}
    if (said := widths["weight_bits"]) != bits:
        raise NetworkError(f"The graph's metadata says numerics = {numerics!r}, and weight_bits = {said}.")
    least, _ = signed_range(widths["input_bits"])
    return Quantisation(
        input_scale=number("input_scale", metadata["input_scale"]),
        input_minimum=integer("input_minimum", metadata["input_minimum"], least),
        input_maximum=integer("input_maximum", metadata["input_maximum"], 1),
        readout_scale=number("readout_scale", metadata["readout_scale"]),
        **widths,
    )
