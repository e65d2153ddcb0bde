"""The text of the C files."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jinja2 import Environment, PackageLoader, StrictUndefined
from numpy.typing import NDArray

from cos_export.bounds import MAX_STEPS
from cos_export.c_code.body import Body
from cos_export.c_code.layers import Memory, layers_of, memory_of
from cos_export.c_code.names import Identifiers, readable
from cos_export.c_code.plan import plan_of
from cos_export.c_code.statements import body_of
from cos_export.c_code.storage import Storage, channels_last
from cos_export.datasets import image_array
from cos_export.errors import InputError, NetworkError
from cos_export.network import FloatArray, Quantisation, SpikingNetwork
from cos_export.quantisation.ranges import check_ranges
from cos_export.simulation.fixed_point import input_gain, quantise_input
from cos_export.simulation.layerwise import check_layerwise
from cos_export.version import __version__
from cos_export.whole_number import whole_number

__all__ = ["CSource", "c_source", "quantised_images", "rendered"]

LARGEST_COUNT = int(np.iinfo(np.uint8).max)
"""Spikes of a neuron in one window: a byte counts them."""


@dataclass(frozen=True)
class CSource:
    """A network in C.

    Attributes:
        network: The network.
        steps: T.
        prefix: What the names of the files and of all that is public begin with.
        header: The text of `prefix`.h.
        code: The text of `prefix`.c.
        storages: By layer and for the Input, how their numbers lie.
        state_bytes: Of the struct that changes.
        table_bytes: Of all constant arrays.
        context: What the templates were given.
    """

    network: SpikingNetwork
    steps: int
    prefix: str
    header: str
    code: str
    storages: Mapping[str, Storage]
    state_bytes: int
    table_bytes: int
    context: Mapping[str, Any]

    @property
    def macro(self) -> str:
        """What the names of macros begin with."""
        return self.prefix.upper()


def c_source(network: SpikingNetwork, steps: int, prefix: str, title: str | None = None) -> CSource:
    """Writes a network of integers as C99 that runs `steps` steps.

    Args:
        network: Of integers, without a per-sample method.
        steps: T.
        prefix: An identifier in lower case, which all public names begin with.
        title: What the network is called in comments; by default the prefix.

    Raises:
        InputError: It is a network of float32.
        NetworkError: Its method calibrates each sample, a number does not fit, or a node has no counterpart in C.
    """
    steps = whole_number("The number of steps", steps, 1, MAX_STEPS)
    quantisation = _check(network, steps)
    plan = plan_of(network)
    layers = layers_of(plan)
    memory = memory_of(network, layers, steps)
    taken = Identifiers()
    body = body_of(network, steps, layers, memory, taken)
    pixels = _pixel_table(network, body)
    storages = {name: plan.leaving[name] for name in (network.input_name, *network.layers)}
    context = _context(network, steps, prefix, title or prefix, quantisation, body, memory)
    context |= {"pixel_table": pixels[0], "pixel_channels": pixels[1], "table_bytes": body.tables.nbytes}
    return CSource(
        network,
        steps,
        prefix,
        rendered("code.h.jinja", context),
        rendered("code.c.jinja", context),
        storages,
        context["state_bytes"],
        body.tables.nbytes,
        context,
    )


def quantised_images(network: SpikingNetwork, images: FloatArray) -> NDArray[np.integer]:
    """Images or frames as the C code takes them: (samples, numbers) of int8 or uint8, a pixel's channels side by side.

    Frames (samples, T, ...) follow each other.
    """
    quantisation = network.quantisation
    integers = quantise_input(torch.from_numpy(np.ascontiguousarray(images)), quantisation).numpy()
    signed = quantisation is not None and quantisation.input_minimum < 0
    axes = images.ndim - len(network.input_shape)
    arranged = channels_last(network.input_shape).arranged(integers.astype(np.int8 if signed else np.uint8), axes)
    return np.asarray(arranged.reshape(len(images), -1))


def rendered(template: str, context: Mapping[str, Any]) -> str:
    """The text that a template makes."""
    environment = Environment(
        loader=PackageLoader("cos_export.c_code"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.tests["match"] = lambda kernel, pattern: re.match(pattern, kernel) is not None
    return environment.get_template(template).render(context)


def _check(network: SpikingNetwork, steps: int) -> Quantisation:
    quantisation = network.quantisation
    if quantisation is None:
        raise InputError(
            "C code is written of a network of integers, and this one is of float32. Export it with --numerics int8 "
            "(cos_export.quantise) first."
        )
    if network.rho:
        raise NetworkError(
            f"{network.method!r} sets the potentials of each image in {network.rho} steps of its own before the run, "
            "which the C code does not have. Calibrate with a static method, such as static, or take the layer-wise "
            "schedule."
        )
    if network.schedule == "layerwise":
        check_layerwise(network)
        if steps > LARGEST_COUNT:
            raise NetworkError(
                f"Under the layer-wise schedule the C code counts the spikes of a window in 8 bits: at most "
                f"{LARGEST_COUNT} steps, and {steps} were asked for."
            )
    check_ranges(network, steps)
    return quantisation


def _pixel_table(network: SpikingNetwork, body: Body) -> tuple[str, int]:
    """The table that makes the input of pixels, and how many channels it tells apart; no name without pixels."""
    if len(network.input_shape) < 3:
        return "", 1
    channels = network.input_shape[0]
    pixels = np.arange(np.iinfo(np.uint8).max + 1).astype(np.uint8)
    levels = np.broadcast_to(pixels[:, None, None, None], (len(pixels), channels, 1, 1))
    images = image_array(np.ascontiguousarray(levels), network.normalisation)
    values = quantise_input(torch.from_numpy(images), network.quantisation).numpy().reshape(len(pixels), channels).T
    if np.all(values == values[:1]):
        values = values[:1]
    table = body.table("pixel", "_inputs", values.ravel().astype(np.int64), _input_type(network.quantisation))
    return table.name, len(values)


def _input_type(quantisation: Quantisation | None) -> str:
    return "int8_t" if quantisation is not None and quantisation.input_minimum < 0 else "uint8_t"


def _context(
    network: SpikingNetwork,
    steps: int,
    prefix: str,
    title: str,
    quantisation: Quantisation,
    body: Body,
    memory: Memory,
) -> dict[str, Any]:
    """What the templates show."""
    classes, inputs = math.prod(network.output_shape), math.prod(network.input_shape)
    words, spikes = max(1, memory.word_count), max(4, -(-memory.byte_count // 4) * 4)
    reads = re.compile(rf"\b{body.input_name}\b")
    shown = [(comment, name, lines, any(map(reads.search, lines))) for comment, name, lines in body.functions]
    names = network.class_names
    return {
        "network": network,
        "quantisation": quantisation,
        "version": __version__,
        "title": readable(title),
        "prefix": prefix,
        "P": prefix.upper(),
        "steps": steps,
        "classes": classes,
        "inputs": inputs,
        "frames": body.frames,
        "image": body.input_name,
        "decides": len(network.output_shape) == 1,
        "class_names": None if names is None else [readable(name) for name in names],
        "layer_names": [readable(name) for name in network.layers],
        "input_words": _axes(network.input_shape),
        "output_words": "" if len(network.output_shape) == 1 else f" of shape {network.output_shape}, flattened",
        "input_type": _input_type(quantisation),
        "normalisation": _normalisation(network),
        "gain": _shortest(input_gain(quantisation)),
        "readout_scale": _shortest(np.float32(quantisation.readout_scale)),
        "words": words,
        "bytes": spikes,
        "state_bytes": 4 * steps * classes + 4 * words + spikes,
        "tables": body.tables.tables,
        "windows": body.windows,
        "kernels": sorted(body.kernels),
        "most_taps": body.most_taps,
        "functions": shown,
    }


def _axes(shape: tuple[int, ...]) -> str:
    if len(shape) == 1:
        return f"{shape[0]} features"
    channels, *places = shape
    return f"{' x '.join(map(str, places))} pixels of {channels} channel{'s' * (channels > 1)}"


def _normalisation(network: SpikingNetwork) -> str:
    known = network.normalisation
    return "" if known is None else f", pixels / 255 {known.words()}"


def _shortest(value: np.float32) -> str:
    return np.format_float_scientific(value, trim="-")
