"""Thresholds from data against their definitions, spelled out over all activations."""

import numpy as np
import pytest
import torch
from narrowing import of_type
from torch import nn
from torch.nn import functional as F

from calibration.thresholds import BINS, GRID, Histogram, maximum, mmse, percentile, relu_thresholds
from cos_export.errors import CaptureError, InputError
from cos_export.qcfs import QCFS


def histogram_of(rows, bins=BINS):
    """As the definition has it: bin b holds (top b / bins, top (b + 1) / bins]."""
    top = np.array([row.max() for row in rows])
    counts = np.zeros((len(rows), bins), np.int64)
    for r, row in enumerate(rows):
        for a in row[row > 0]:
            counts[r, min(int(np.ceil(a * bins / top[r])) - 1, bins - 1)] += 1
    return Histogram(counts, top)


def samples(seed, count=800):
    rng = np.random.default_rng(seed)
    return [rng.exponential(1.0, count), rng.normal(0, 2, count).clip(0), rng.uniform(0, 1, count) ** 3]


def slow_mmse(activations, steps, grid=GRID):
    best, least = None, np.inf
    for k in range(grid, 0, -1):
        theta = activations.max() * k / grid
        quantised = theta / steps * np.clip(np.floor(activations * steps / theta + 0.5), 0, steps)
        error = np.mean((quantised - activations) ** 2)
        if error < least:
            best, least = theta, error
    return best, least


def error_of(theta, activations, steps):
    quantised = theta / steps * np.clip(np.floor(activations * steps / theta + 0.5), 0, steps)
    return np.mean((quantised - activations) ** 2)


def test_the_maximum():
    rows = samples(0)
    np.testing.assert_array_equal(maximum(histogram_of(rows)), [row.max() for row in rows])


@pytest.mark.parametrize("p", [50.0, 90.0, 99.0, 99.9, 100.0])
@pytest.mark.parametrize("seed", range(2))
def test_a_percentile_is_the_upper_edge_of_its_bin(seed, p):
    rows = samples(seed)
    for actual, row in zip(percentile(histogram_of(rows), p), rows, strict=True):
        exact = np.percentile(row[row > 0], p, method="inverted_cdf")
        assert exact - 1e-9 <= actual <= exact + row.max() / BINS + 1e-9


@pytest.mark.parametrize("steps", [1, 2, 4, 8, 32])
@pytest.mark.parametrize("seed", range(2))
def test_mmse_finds_the_threshold_of_least_error(seed, steps):
    rows = samples(seed)
    for actual, row in zip(mmse(histogram_of(rows), steps), rows, strict=True):
        positive = row[row > 0]
        _, least = slow_mmse(positive, steps)
        assert error_of(actual, positive, steps) <= least * 1.01 + 1e-9


def test_mmse_over_the_bins_is_the_definition_itself():
    rows = samples(3)
    histogram = histogram_of(rows, 64)
    for actual, counts, top in zip(mmse(histogram, 4), histogram.counts, histogram.top, strict=True):
        centres = np.repeat((np.arange(64) + 0.5) / 64 * top, counts)
        errors = [(error_of(top * k / GRID, centres, 4), -k) for k in range(1, GRID + 1)]
        assert actual == pytest.approx(top * -min(errors)[1] / GRID)


def test_fewer_steps_want_a_lower_threshold():
    histogram = histogram_of(samples(0))
    assert (mmse(histogram, 2) < mmse(histogram, 16)).all()


@pytest.mark.parametrize("method", [maximum, percentile, lambda histogram: mmse(histogram, 4)])
def test_a_row_that_was_never_active_is_zero(method):
    histogram = Histogram(np.zeros((2, BINS), np.int64), np.zeros(2))
    np.testing.assert_array_equal(method(histogram), [0.0, 0.0])


# --- on a module --------------------------------------------------------------------------------------


class Net(nn.Module):
    """A ReLU module that is called twice, a function in place, a bounded one and a QCFS."""

    def __init__(self):
        super().__init__()
        self.conv1, self.conv2, self.conv3 = (nn.Conv2d(n, 3, 3, padding=1) for n in (1, 3, 3))
        self.relu, self.six, self.quantised = nn.ReLU(inplace=True), nn.ReLU6(), QCFS(4, 0.5)
        self.fc1, self.fc2, self.head = nn.Linear(3, 5), nn.Linear(5, 5), nn.Linear(5, 2)

    def forward(self, x):
        x = self.relu(self.conv1(x))
        x = self.relu(self.conv2(x) + x)
        x = self.six(self.conv3(x)).mean((2, 3))
        x = F.relu(self.fc1(self.quantised(x)))
        return self.head(F.relu_(self.fc2(x)))


def model_and_images(count=37):
    torch.manual_seed(1)
    return Net(), torch.rand(count, 1, 6, 6) * 2 - 0.5


def inputs_of_relus(model, x):
    """The inputs of the ReLUs, computed by hand."""
    with torch.no_grad():
        first = model.conv1(x)
        second = model.conv2(first.relu()) + first.relu()
        third = model.fc1(model.quantised(model.six(model.conv3(second.relu())).mean((2, 3))))
        fourth = model.fc2(third.relu())
    return {"relu": first, "relu@1": second, "relu()": third, "relu()@1": fourth}


@pytest.mark.parametrize("batch_size", [5, 64])
@pytest.mark.parametrize("per_channel", [False, True])
def test_the_maximum_of_each_relu(per_channel, batch_size):
    model, x = model_and_images()
    actual = relu_thresholds(model, x, "maximum", per_channel=per_channel, device="cpu", batch_size=batch_size)
    inputs = inputs_of_relus(model, x)
    assert list(actual) == list(inputs)
    for key, before in inputs.items():
        rows = before.transpose(0, 1).flatten(1).amax(1) if per_channel else before.max()
        expected = np.where(rows > 0, rows, rows.max()) if per_channel else rows
        np.testing.assert_allclose(actual[key], expected, rtol=1e-5)
        assert actual[key].dtype == np.float32


@pytest.mark.parametrize("per_channel", [False, True])
@pytest.mark.parametrize("method", ["percentile", "mmse"])
def test_the_histogram_is_that_of_all_positive_activations(method, per_channel):
    model, x = model_and_images()
    actual = relu_thresholds(model, x, method, per_channel=per_channel, steps=3, p=90.0, device="cpu", batch_size=8)
    for key, before in inputs_of_relus(model, x).items():
        array = before.double().numpy()
        rows = list(np.moveaxis(array, 1, 0).reshape(array.shape[1], -1)) if per_channel else [array.ravel()]
        active = [row for row in rows if row.max() > 0]
        histogram = histogram_of(active)
        expected = percentile(histogram, 90.0) if method == "percentile" else mmse(histogram, 3)
        kept = np.atleast_1d(actual[key])[[row.max() > 0 for row in rows]]
        # Rounding may move an activation into the next bin.
        np.testing.assert_allclose(kept, expected, rtol=0.02)


def test_a_batch_size_that_forward_wrote_down():
    class Long(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc, self.head = nn.Linear(6, 4), nn.Linear(4, 2)

        def forward(self, x):
            return self.head(F.relu(self.fc(x)).view(len(x), -1))

    torch.manual_seed(0)
    model, x = Long(), torch.rand(10, 6)
    actual = relu_thresholds(model, x, "maximum", device="cpu")
    assert actual["relu"] == pytest.approx(model.fc(x).max().item())


def test_images_and_model_are_left_alone_and_progress_is_told():
    class InPlace(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(6, 4)

        def forward(self, x):
            return self.fc(x.relu_())

    model, x = InPlace().train(), torch.rand(9, 6) - 0.5
    before, told = x.clone(), []
    relu_thresholds(model, x, device="cpu", batch_size=4, progress=lambda *step: told.append(step))
    assert torch.equal(x, before)
    assert model.training
    assert [step[1:] for step in told] == [(0, 9), (4, 9), (8, 9), (9, 9)] * 2
    assert len({step[0] for step in told}) == 2


class MakesTensors(nn.Module):
    """Its trace says where to make a tensor and where to move one."""

    def __init__(self):
        super().__init__()
        self.fc, self.head = nn.Linear(6, 4), nn.Linear(4, 2)

    def forward(self, x):
        scale = torch.full((), 2.0, device=x.device)
        return self.head(F.relu(self.fc(x).to("cpu") * scale.to(x.device)))


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_on_each_device(device):
    if device == "cuda" and not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    model, x = model_and_images()
    actual = relu_thresholds(model, x, "percentile", per_channel=True, device=device)
    for key, expected in relu_thresholds(model, x, "percentile", per_channel=True, device="cpu").items():
        np.testing.assert_allclose(actual[key], expected, rtol=1e-2)
    torch.manual_seed(0)
    model, x = MakesTensors(), torch.rand(5, 6)
    actual = relu_thresholds(model, x, "maximum", device=device)
    np.testing.assert_allclose(actual["relu"], 2 * model.fc(x).max().item(), rtol=1e-5)


def test_a_silent_channel_gets_the_highest_of_its_layer():
    model = nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 2))
    first = of_type(model[0], nn.Linear)
    first.weight.data = torch.tensor([[1.0, 0.0], [2.0, 0.0], [-1.0, 0.0]])
    first.bias.data.zero_()
    actual = relu_thresholds(model, np.ones((4, 2), np.float32), "maximum", per_channel=True, device="cpu")
    np.testing.assert_array_equal(actual["1"], [1.0, 2.0, 2.0])


def test_a_silent_layer_is_named():
    model = nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 2))
    first = of_type(model[0], nn.Linear)
    first.weight.data.zero_()
    first.bias.data.fill_(-1.0)
    with pytest.raises(InputError, match="'1' is never active on these 4 images"):
        relu_thresholds(model, np.ones((4, 2), np.float32), device="cpu")


def test_a_network_without_relus_needs_none():
    model = nn.Sequential(nn.Linear(2, 3), QCFS(4), nn.Linear(3, 2))
    assert relu_thresholds(model, np.ones((4, 2), np.float32), device="cpu") == {}


def test_other_blockers_are_told_at_once():
    with pytest.raises(CaptureError, match="3: sigmoid"):
        relu_thresholds(
            nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 2), nn.Sigmoid(), nn.Linear(2, 2)), np.ones((4, 2))
        )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"method": "median"}, "no threshold method 'median'"),
        ({"steps": 0}, "steps"),
        ({"p": 0.0}, "percentile"),
        ({"batch_size": 0}, "batch_size"),
        ({"images": np.zeros((0, 2), np.float32)}, "no images"),
        ({"images": np.full((1, 2), np.nan)}, "not finite"),
        ({"images": np.array([["a"]])}, "must be uint8 or of a float type"),
    ],
)
def test_options_that_cannot_be_used(options, message):
    model = nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 2))
    with pytest.raises(InputError, match=message):
        relu_thresholds(model, **{"images": np.ones((4, 2)), "device": "cpu", **options})
