"""The net under the capture: a network that does not compute what its module does is refused, and rounding is not."""

import copy

import numpy as np
import pytest
import torch
from narrowing import of_type, statistics
from torch import nn

from calibration.agreement import check_agreement
from calibration.sources import check_takes
from calibration.thresholds import relu_thresholds
from cos_export.capturing import captured
from cos_export.capturing.options import check_options
from cos_export.datasets import Dataset
from cos_export.errors import ParityError
from cos_export.qcfs import QCFS
from cos_export.simulation import ann_logits


def network_of(activation, seed=0):
    torch.manual_seed(seed)
    model = nn.Sequential(
        nn.Conv2d(2, 6, 3, padding=1),
        nn.BatchNorm2d(6),
        activation(),
        nn.Conv2d(6, 6, 3, padding=1),
        nn.BatchNorm2d(6),
        activation(),
        nn.Flatten(),
        nn.Linear(6 * 36, 5),
    ).eval()
    for norm in (of_type(model[1], nn.BatchNorm2d), of_type(model[4], nn.BatchNorm2d)):
        mean, variance = statistics(norm)
        mean.normal_(0, 0.3)
        variance.uniform_(0.3, 2)
        norm.weight.data.uniform_(0.5, 1.5)
        norm.bias.data.normal_(0, 0.3)
    return model


def images_of(count, seed=1):
    return np.random.default_rng(seed).normal(size=(count, 2, 6, 6)).astype(np.float32)


def plain_logits(model, images):
    with torch.no_grad():
        return model(torch.from_numpy(images.copy())).numpy()


ACTIVATIONS = {"QCFS": lambda: QCFS(4, 1.0), "ReLU": nn.ReLU, "ReLU6": nn.ReLU6}


def capture_of(model, images, method="maximum", scale=1.0):
    thresholds = relu_thresholds(model, images, method, device="cpu")
    return captured(model, images[:1], check_options(thresholds={k: v * scale for k, v in thresholds.items()}))


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_a_capture_agrees_with_its_module(activation):
    model, images = network_of(ACTIVATIONS[activation]), images_of(40)
    kept, state = images.copy(), copy.deepcopy(model.state_dict())
    logits = check_agreement(model, capture_of(model, images), images, device="cpu")
    np.testing.assert_allclose(logits, plain_logits(model, images), rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(images, kept)
    assert all(torch.equal(state[name], tensor) for name, tensor in model.state_dict().items())


def test_what_a_relu_loses_above_its_threshold_is_no_disagreement():
    model, images = network_of(nn.ReLU), images_of(40)
    result = capture_of(model, images, scale=0.3)
    clipped = np.abs(ann_logits(result.network, images, device="cpu") - plain_logits(model, images)).max()
    assert clipped > 0.1
    check_agreement(model, result, images, device="cpu")


def test_a_bounded_relu_is_compared_with_its_bound():
    model, images = network_of(lambda: nn.Hardtanh(0, 0.5)), images_of(10)
    result = captured(model, images[:1], check_options())
    assert not result.unbounded
    check_agreement(model, result, images, device="cpu")
    with pytest.raises(ParityError):
        check_agreement(network_of(nn.ReLU), result, images, device="cpu")


def test_a_sum_that_rounds_to_the_other_side_of_a_step_is_no_disagreement():
    """The bias puts the first neuron exactly on a step; folded, it comes to lie above or below."""
    flipped, runs = 0, list[int]()
    for seed in range(12):
        torch.manual_seed(seed)
        model = nn.Sequential(nn.Linear(9, 8), nn.BatchNorm1d(8), QCFS(4, 1.0), nn.Linear(8, 3)).eval()
        mean, variance = statistics(model[1])
        mean.normal_()
        variance.uniform_(0.3, 2)
        images = torch.randn(1, 9)
        with torch.no_grad():
            for _ in range(20):
                model[1].bias += 0.625 - model[1](model[0](images))[0]
        result = captured(model, images, check_options())
        off = np.abs(ann_logits(result.network, images, device="cpu") - plain_logits(model, images.numpy())).max()
        flipped += off > 1e-2
        before = len(runs)
        check_agreement(model, result, images.numpy(), device="cpu", progress=lambda _, run, total: runs.append(run))
        assert len(runs) - before < 12, "no run is made once those before it explain it"
    assert flipped >= 3


def change(model, how):
    if how == "one weight in all":
        model[3].weight.data[2, 3, 1, 1] += 0.05
    elif how == "a threshold":
        model[2].threshold.data *= 1.02
    elif how == "a mean":
        model[4].running_mean += 0.02
    else:
        model[0].weight.data /= 16


@pytest.mark.parametrize(
    ("activation", "how"),
    [(a, h) for a in ACTIVATIONS for h in ("one weight in all", "a mean", "scaled")] + [("QCFS", "a threshold")],
)
def test_another_network_does_not_agree(activation, how):
    model, images = network_of(ACTIVATIONS[activation]), images_of(40)
    result = capture_of(model, images)
    change(model, how)
    off = np.abs(ann_logits(result.network, images, device="cpu") - plain_logits(model, images)).max(1)
    with pytest.raises(ParityError, match=r"on image \d+ by .* where rounding explains") as error:
        check_agreement(model, result, images, device="cpu")
    assert error.value.exit_code == 1
    assert f"differ on {(off > 1e-4).sum()} of 40 images" in str(error.value)


def test_one_image_that_is_off_is_named():
    class Branch(nn.Module):
        """Computes something else for one kind of image, where no trace sees it."""

        def __init__(self):
            super().__init__()
            self.net = network_of(nn.ReLU6)

        def forward(self, x):
            logits = self.net(x)
            return logits if torch.compiler.is_exporting() else logits + 0.01 * (x[:, 0, 0, :1] > 50)

    model, images = Branch().eval(), images_of(40)
    result = captured(model, images[:1], check_options())
    check_agreement(model, result, images, device="cpu")
    images[17, 0, 0, 0] = 60
    with pytest.raises(ParityError, match=r"differ on 1 of 40 images, on image 17 by 0\.01,"):
        check_agreement(model, result, images, device="cpu")


def test_replaced_pooling_is_another_function_and_not_compared():
    model = nn.Sequential(nn.Conv2d(2, 4, 3), nn.ReLU6(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(16, 3)).eval()
    images = images_of(5)
    result = captured(model, images[:1], check_options(max_pool="average"))
    assert result.replaced
    check_agreement(model, result, images, device="cpu")


def test_the_first_look_at_the_images_writes_nothing_into_them():
    class Halving(nn.Sequential):
        def forward(self, x):
            x *= 0.5
            return super().forward(x)

    images = images_of(4)
    kept, model = images.copy(), Halving(nn.Flatten(), nn.Dropout(0.5), nn.Linear(72, 3))
    check_takes(model, Dataset(images, np.zeros(4, np.int64), "random", "none"))
    np.testing.assert_array_equal(images, kept)
    assert all(module.training for module in model.modules())
