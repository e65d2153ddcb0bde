"""Runs one way's lines in a process of its own: `python child.py JOB.json`. What came of it is in the job's folder.

result.npz holds logits (steps, samples, classes), their mean over the steps so far, and the spikes of each layer where
the way shows them, (steps, samples, ...) as it counts them; or error.json says why there are none.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

NEURONS = ("IAFSqueeze", "IAFCell", "Leaky", "_NIRStatefulModule")
"""Classes that the importers make of a spiking node."""


def main() -> None:
    """Executes the lines, and keeps what they leave."""
    job = json.loads(Path(sys.argv[1]).read_text())
    sys.path[:0] = job["paths"]
    folder = Path(sys.argv[1]).parent
    try:
        arrays = run(job, np.load(folder / "images.npy"))
    except Exception as error:  # noqa: BLE001 - whatever the client raises is what is told
        words = " ".join(str(error).split()) or type(error).__name__
        (folder / "error.json").write_text(json.dumps(f"{type(error).__name__}: {words}"))
        return
    np.savez(folder / "result.npz", **arrays)


def run(job: dict[str, Any], images: Any) -> dict[str, Any]:
    """Logits and spikes of the lines."""
    names: dict[str, Any] = {"images": images, "steps": job["steps"], "state": None}
    if job["torch"]:
        import torch

        torch.set_grad_enabled(False)
        torch.set_num_threads(1)
        names["images"] = torch.from_numpy(images)
    exec(job["imports"], names)
    exec(job["first"], names)
    seen: dict[str, list[Any]] = {}
    if "network" in names and hasattr(names["network"], "named_modules"):
        watch(names["network"], job["layers"], seen)
    if job["each_image"]:
        return one_by_one(job, names, images)
    found = []
    for _ in range(job["steps"] if job["each_step"] else 1):
        exec(job["second"], names)
        found.append(names.get("outputs"))
    return collected(job, names, found, seen)


def watch(network: Any, layers: list[str], seen: dict[str, list[Any]]) -> None:
    """Keeps what the modules of neurons fire, by the layer whose name they have."""
    for path, module in network.named_modules():
        layer = next((name for name in layers if name in path.split(".")), None)
        if layer is None or type(module).__name__ not in NEURONS:
            continue

        def keep(module: Any, given: Any, fired: Any, layer: str = layer) -> None:
            fired = fired[0] if isinstance(fired, tuple) else fired
            seen.setdefault(layer, []).append(np.array(fired))

        module.register_forward_hook(keep)


def one_by_one(job: dict[str, Any], names: dict[str, Any], images: Any) -> dict[str, Any]:
    """Of a way that runs one image: all of them."""
    parts = []
    for image in images:
        names["image"] = image
        exec(job["second"], names)
        parts.append((names["spikes"], names["outputs"]))
    arrays = {name: np.stack([spikes[name] for spikes, _ in parts], 1) for name in parts[0][0]}
    return {f"spikes/{name}": value for name, value in arrays.items()} | {
        "logits": means(np.stack([outputs for _, outputs in parts], 1))
    }


def collected(job: dict[str, Any], names: dict[str, Any], found: list[Any], seen: Any) -> dict[str, Any]:
    """What the lines have left in their names."""
    steps, samples = job["steps"], len(names["images"])
    if "trace" in names:
        spikes, logits = names["trace"].spikes, names["trace"].logits
    elif "session" in names or job["first"].startswith("model = openvino"):
        logits, *fired = found[0]
        spikes = dict(zip(job["outputs"], fired, strict=True))
    elif "logits" in names:
        spikes = names["spikes"] if "spikes" in names else names["network"].spikes
        logits = np.array(names["logits"])
    else:  # an importer of the client's own: the sum over steps of what it puts out
        spikes = {name: stacked(parts, steps, samples) for name, parts in seen.items()}
        logits = means(stacked(found, steps, samples).astype(np.float64))
    arrays = {f"spikes/{name}": np.array(value) for name, value in spikes.items()} | {"logits": np.array(logits)}
    if "model" in names:
        arrays["precision"] = np.array(names["model"].get_property("INFERENCE_PRECISION_HINT").to_string())
    return arrays


def stacked(parts: list[Any], steps: int, samples: int) -> Any:
    """(steps, samples, ...) of one array for each step, or of one with steps before samples or after them in a row."""
    if len(parts) == steps:
        return np.stack([np.array(part) for part in parts])
    [whole] = [np.array(part) for part in parts]
    if len(whole) == steps * samples:
        return whole.reshape(samples, steps, *whole.shape[1:]).swapaxes(0, 1)
    return whole


def means(outputs: Any) -> Any:
    """The mean of the first t outputs, for each t."""
    return outputs.cumsum(0) / np.arange(1, len(outputs) + 1).reshape(-1, *[1] * (outputs.ndim - 1))


if __name__ == "__main__":
    main()
