"""The whole way in Python: capture, calibrate, simulate, export, verify.

    python examples/digits.py [FOLDER]

Writes a bundle into FOLDER (out/example by default) and prints what came of it.
"""

from __future__ import annotations

import sys

import cos_export as ce
from cos_export import zoo


def main(folder: str = "out/example") -> None:
    """Runs the digits network at T = 2 with calibrated potentials, and checks ONNX Runtime against PyTorch."""
    train, test = ce.load_dataset("digits", "train"), ce.load_dataset("digits", "test")
    model = zoo.build("digits")
    zoo.load_weights(model, zoo.weights_path("digits"))

    network = ce.capture(model, test.images[:1])
    print(f"{network.neuron_count:,} neurons in {len(network.layers)} layers: {', '.join(network.layers)}")

    calibrated = ce.calibrate(network, train.images, method="mean-matching", steps=2)
    for label, candidate in (("theta / 2", network), ("calibrated", calibrated)):
        shares = ce.simulate(candidate, test.images, steps=2, record_spikes=False).accuracy(test.truth)
        print(f"{label}: " + ", ".join(f"{100 * share:.1f} % at T = {t}" for t, share in enumerate(shares, 1)))

    per_sample = ce.simulate(network, test.images, steps=2, calibration=ce.COS(rho=4), record_spikes=False)
    share = per_sample.accuracy(test.truth)[-1]
    print(f"COS, rho = 4: {100 * share:.1f} % in {per_sample.total_steps} steps per input")

    bundle = ce.export(calibrated, folder, golden=test.images[:32], labels=test.truth[:32])
    result = ce.verify(bundle, targets=["onnxruntime"])
    parity = result["onnxruntime"]
    print(f"{parity.comparison.compared:,} spikes compared, {parity.mismatches} differ")
    print(f"{parity.local_violations} local violations: {'passed' if result.passed else 'FAILED'}")
    print(f"The bundle is in {bundle.path}")


if __name__ == "__main__":
    main(*sys.argv[1:])
