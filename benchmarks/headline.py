"""The rows of `static` that tune potentials, biases and weights, each T calibrated as long as for the README's tables.

    python benchmarks/headline.py vgg9 --data cifar10_test.npz --calibration-data cifar10_train.npz \
        --out docs/measured/vgg9

Each calibrated network is kept as a NIR file in --keep; a calibration that was killed goes on from there, too. On one
thread of a CPU, T = 4 of `vgg9` takes half an hour and T = 1 of ResNet-20 an hour with AVX-512 BF16, and twice as long
without. Where there is time for more, as on a GPU, --times multiplies the updates.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path

from accuracy import main as measure
from accuracy import numbers


@dataclass(frozen=True)
class Recipe:
    """How long `static` is calibrated for one T.

    Attributes:
        updates: Gradient steps.
        samples: Images in each.
        learning_rate: Of Adam.
        after: The T whose calibrated network this one starts from; None starts from FTBC.
    """

    updates: int
    samples: int
    learning_rate: float = 0.004
    after: int | None = None


RECIPES = {
    "resnet20": {
        1: Recipe(14000, 64, 0.008),
        2: Recipe(3800, 64, 0.006, after=1),
        4: Recipe(2200, 64),
        5: Recipe(3300, 16),
        6: Recipe(4000, 32),
        8: Recipe(2400, 32),
        12: Recipe(1200, 32),
    },
    "vgg9": {
        1: Recipe(4000, 64, 0.008),
        2: Recipe(4000, 64),
        4: Recipe(4400, 64),
        8: Recipe(1000, 32),
    },
}


def arguments(model: str, steps: int, given: argparse.Namespace) -> list[str]:
    """What benchmarks/accuracy.py is called with for one T."""
    recipe = RECIPES[model][steps]
    called = [model, "--methods", "static", "--tune", "potential,bias,weight", "--samples", "50000", "--compile"]
    called += ["--flip", "--shift", "4", "--both-sides"]
    called += ["--steps", str(steps), "--seeds", ",".join(map(str, given.seeds))]
    called += ["--updates", str(recipe.updates * given.times), "--batch", str(recipe.samples)]
    called += ["--learning-rate", str(recipe.learning_rate), "--device", given.device]
    called += ["--data", str(given.data), "--calibration-data", str(given.calibration_data)]
    if recipe.after is not None:
        called += ["--start-from", str(given.keep / f"{model}-static-{recipe.after}-{{seed}}.nir")]
    return [*called, "--keep", str(given.keep), "--out", str(given.out)]


def main() -> None:
    """Calibrates, measures, and adds what is measured to the tables of --out."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", choices=list(RECIPES))
    parser.add_argument("--data", type=Path, required=True, help="the .npz to measure on")
    parser.add_argument("--calibration-data", type=Path, required=True, help="the .npz to calibrate on")
    parser.add_argument("--steps", type=numbers, help="only these T, with commas: 1,2")
    parser.add_argument("--seeds", type=numbers, default=[0], help="of the calibrations, with commas: 0,1,2")
    parser.add_argument("--times", type=int, default=1, help="so many times the updates")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--keep", type=Path, default=Path("out/headline"), help="folder for the calibrated networks")
    parser.add_argument("--out", type=Path, required=True, help="written with .json, .md and .svg, or added to")
    given = parser.parse_args()
    known = RECIPES[given.model]
    for steps in given.steps or known:
        if steps not in known:
            parser.error(f"--steps: T = {steps} is none of {', '.join(map(str, known))}.")
    for steps in given.steps or known:
        measure(arguments(given.model, steps, given))


if __name__ == "__main__":
    main()
