"""The images that a bundle is run on: normalised as it says, with labels that its readout knows."""

from __future__ import annotations

from pathlib import Path

from cos_export.bundle.folder import Bundle
from cos_export.datasets import Dataset, Normalisation, Split, agree, check_class_names, class_numbers, load_dataset
from cos_export.decisions import class_count
from cos_export.errors import InputError
from cos_export.network import SpikingNetwork

__all__ = ["dataset_for", "network_dataset"]


def network_dataset(
    network: SpikingNetwork,
    called: object,
    spec: str | Path,
    asked: Normalisation | None = None,
    *,
    known: bool,
    split: Split = "test",
    size: tuple[int, int] | None = None,
) -> Dataset:
    """The data set called `spec`, as a network takes it that was made before.

    Args:
        network: What is to be run.
        called: What an error calls it.
        spec: As for `load_dataset`.
        asked: What the user gave besides, or None. It must be what the network says.
        known: Whether the network, or what it lies in, says of its normalisation that there is one or none.
        split: Which part of a named data set.
        size: As for `load_dataset`.

    Raises:
        InputError: There is no such data set, or it or `asked` contradicts the network.
    """
    if known and asked is not None and not agree(asked, network.normalisation):
        held = "without mean and std" if network.normalisation is None else network.normalisation.words()
        raise InputError(
            f"{called} was made for images {held}, and --mean and --std ask for {asked.words()}. "
            "Leave them out: what it says is applied."
        )
    dataset = load_dataset(spec, split, size=size).normalised(network.normalisation or asked)
    if dataset.labels is not None:
        class_numbers(dataset.labels, None, class_count(network.output_shape[-1]), f"The labels of {dataset.name}")
    check_class_names(dataset.class_names, dataset.name, network.class_names, str(called))
    return dataset


def dataset_for(
    bundle: Bundle, spec: str | Path, asked: Normalisation | None = None, *, size: tuple[int, int] | None = None
) -> Dataset:
    """The data set called `spec`, as the network of `bundle` takes it.

    The mean and std that the bundle was made with are in its manifest, and are applied. Only a bundle of the first
    format may not say: then those that are asked for are.

    Args:
        bundle: What is to be run.
        spec: As for `load_dataset`.
        asked: What the user gave besides, or None. It must be what the bundle says.
        size: As for `load_dataset`.

    Raises:
        BundleError: The manifest contradicts the graph.
        InputError: There is no such data set, or it or `asked` contradicts the bundle.
    """
    known = bundle.network.normalisation is not None or "normalisation" in bundle.manifest
    return network_dataset(bundle.network, bundle.path, spec, asked, known=known, size=size)
