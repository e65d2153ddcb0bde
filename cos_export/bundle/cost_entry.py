"""What the manifest says of costs: the part of its schema that `cos_export.costing.Costs.to_dict` fills."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from cos_export.bundle.manifest_fields import Amount, Count, Extra, Name, Numerics, Share, Steps, Text
from cos_export.network.schedule import Schedule

__all__ = ["CostEntry"]


class _Entry(BaseModel):
    """Keys that it does not know belong to later versions, and are left alone."""

    model_config = ConfigDict(strict=True, extra="allow")


class DepthEntry(_Entry):
    """Of the longest path."""

    layers: Count
    hops: Count


class TimingEntry(_Entry):
    """Steps."""

    steps_per_layer: Count
    latency: Count
    latency_with_hops: Count
    interval: Count
    depth: DepthEntry


class OperationsEntry(_Entry):
    """Of one image, in the mean."""

    spikes: Amount
    synaptic_operations: Amount
    effective_acs: Amount
    effective_macs: Amount
    effective_macs_every_step: Amount
    dense: Amount
    pooling_additions: Amount
    bias_additions: Amount
    presimulation: Amount
    neuron_updates: Count
    activation_sparsity: Share
    by_node: Annotated[dict[Name, Amount], Field(max_length=10_000)]


class FootprintEntry(_Entry):
    """Bytes."""

    weights_float32: Count
    weights_int8: Count
    biases: Count
    neurons: Count
    potentials: Count
    counts: Count
    presimulation: Count
    connection_sparsity: Share
    parameters: Count
    state: Count


class EnergyEntry(_Entry):
    """Picojoules, and bytes beside them."""

    picojoules: Amount
    picojoules_every_step: Amount
    memory_traffic: Amount


class ArtificialEntry(_Entry):
    """The artificial network at equal bits."""

    activation_bits: Count
    macs: Count
    effective_macs: Amount
    bit_operations: Count
    effective_bit_operations: Amount
    spiking_bit_operations: Amount
    picojoules: Amount
    effective_picojoules: Amount
    memory_traffic: Amount


class CostEntry(_Entry):
    """What one image costs, counted on the golden images."""

    schedule: Schedule
    num_timesteps: Steps
    method: Name
    rho: Extra
    numerics: Numerics
    samples: Annotated[int, Field(ge=1, lt=2**31)]
    energy_model: Text
    timing: TimingEntry
    operations: OperationsEntry
    footprint: FootprintEntry
    energy: EnergyEntry
    artificial: ArtificialEntry
