"""The end of a module: what decides nothing is left out, one tensor is found, and no shape of it is refused."""

import json
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from calibration import Static
from calibration.agreement import check_agreement
from cos_export import calibrate, capture, export, load, simulate
from cos_export.capturing import captured, check_model, inspect_module
from cos_export.capturing.options import check_options
from cos_export.datasets import Dataset
from cos_export.decisions import decisions
from cos_export.errors import ParityError
from cos_export.qcfs import QCFS
from cos_export.simulation import ann_logits


class Net(nn.Module):
    """Features (batch, classes), or images (batch, channels, 4, 4), and what is under test at their end."""

    def __init__(self, end, images=False, classes=3):
        super().__init__()
        torch.manual_seed(0)
        activation = QCFS(4, threshold=0.7)
        last = [nn.Conv2d(4, classes, 1)] if images else [nn.Flatten(), nn.Linear(64, classes)]
        self.body, self.end = nn.Sequential(nn.Conv2d(2, 4, 3, padding=1), activation, *last), end
        self.eval()

    @property
    def last(self) -> Any:
        """The layer of the logits."""
        return self.body[-1]

    def logits(self, x):
        with torch.no_grad():
            return self.body(x)

    def forward(self, x):
        return self.end(self.body(x))


X = torch.rand(6, 2, 4, 4, generator=torch.Generator().manual_seed(1)) * 2 - 0.5

VECTORS = {
    "softmax": (lambda z: F.softmax(z, 1), ("softmax",)),
    "softmax of the last axis": (lambda z: F.softmax(z, dim=-1), ("softmax",)),
    "module": (nn.Softmax(1), ("softmax",)),
    "log softmax": (lambda z: F.log_softmax(z, -1), ("log_softmax",)),
    "sigmoid": (torch.sigmoid, ("sigmoid",)),
    "logarithm of the sigmoid": (F.logsigmoid, ("log_sigmoid",)),
    "both": (lambda z: F.log_softmax(F.softmax(z, 1), 1), ("softmax", "log_softmax")),
    "in place": (lambda z: z.sigmoid_(), ("sigmoid",)),
    "with None": (lambda z: (z, None), ()),
    "in a list": (lambda z: [F.softmax(z, 1)], ("softmax",)),
    "in a dictionary": (lambda z: {"out": z}, ()),
    "in a dictionary beside None": (lambda z: {"logits": F.softmax(z, 1), "loss": None}, ("softmax",)),
}


def one(output):
    (tensor,) = [leaf for leaf in torch.utils._pytree.tree_leaves(output) if isinstance(leaf, torch.Tensor)]
    return tensor


def prove(model, logits, outputs, x=X):
    """The network gives `logits`, and its tail makes the module's own `outputs` of them."""
    result = captured(model, x, check_options())
    readout = ann_logits(result.network, x.numpy(), device="cpu")
    np.testing.assert_allclose(readout, logits.reshape(len(x), -1), rtol=1e-5, atol=1e-5)
    actual = result.tail(torch.from_numpy(readout)).numpy()
    np.testing.assert_allclose(actual, outputs.reshape(len(x), -1), rtol=1e-5, atol=1e-5)
    check_agreement(model, result, x.numpy(), device="cpu")
    return result.network


@pytest.mark.parametrize(("end", "left_out"), VECTORS.values(), ids=VECTORS)
def test_ends_that_decide_nothing(end, left_out):
    model = Net(end)
    with torch.no_grad():
        outputs = one(model(X)).numpy()
    network = prove(model, model.logits(X).numpy(), outputs)
    assert network.left_out == left_out
    assert network.readout_shape is None
    findings = [f for f in inspect_module(model, X) if "left out" in f.becomes]
    assert [f.op.rstrip("_") for f in findings] == list(left_out)
    assert (outputs.argmax(1) == model.logits(X).numpy().argmax(1)).all()


IMAGES = {
    "as they are": (lambda z: z, (8, 4, 4), ()),
    "softmax of each pixel": (lambda z: F.softmax(z, 1), (8, 4, 4), ("softmax",)),
    "sigmoid": (torch.sigmoid, (8, 4, 4), ("sigmoid",)),
    "larger pixels": (nn.PixelShuffle(2), (8, 4, 4), ("pixel_shuffle",)),
    "larger pixels, sigmoid": (lambda z: F.pixel_shuffle(z, 2).sigmoid(), (8, 4, 4), ("pixel_shuffle", "sigmoid")),
    "channels last": (lambda z: z.permute(0, 2, 3, 1), (8, 4, 4), ("permute",)),
    "flattened, softmax": (lambda z: z.flatten(1).softmax(1), None, ("softmax",)),
}


@pytest.mark.parametrize(("end", "shape", "left_out"), IMAGES.values(), ids=IMAGES)
def test_outputs_of_images(end, shape, left_out):
    model = Net(end, images=True, classes=8)
    with torch.no_grad():
        outputs = model(X).numpy()
    network = prove(model, model.logits(X).numpy(), outputs)
    assert network.output_shape == (128,)
    assert (network.readout_shape, network.left_out) == (shape, left_out)


def test_the_order_of_classes_is_kept():
    model = Net(lambda z: z.unflatten(1, (2, 2)).transpose(1, 2).flatten(1).softmax(1), classes=4)
    network = prove(model, model.logits(X).numpy()[:, [0, 2, 1, 3]], model(X).detach().numpy())
    assert network.left_out == ("softmax",)


ONE_LOGIT = {
    "a column": lambda z: z,
    "squeezed": lambda z: z.squeeze(1),
    "a row": lambda z: z.view(-1),
    "selected": lambda z: z[:, 0],
    "sigmoid": torch.sigmoid,
    "sigmoid, squeezed": lambda z: torch.sigmoid(z).squeeze(-1),
    "squeezed, logarithm": lambda z: F.logsigmoid(z.squeeze(1)),
}


@pytest.mark.parametrize("end", ONE_LOGIT.values(), ids=ONE_LOGIT)
def test_one_logit_for_two_classes(end):
    model = Net(end, classes=1)
    logits = model.logits(X).numpy()
    shifted = float(np.median(logits))
    model.last.bias.data -= shifted
    logits -= shifted
    with torch.no_grad():
        outputs = model(X).numpy()
    prove(model, logits, outputs)
    result = captured(model, X, check_options())
    # What the module decides by: the sign, wherever its end puts zero.
    by = check_agreement(model, result, X.numpy(), device="cpu")
    np.testing.assert_array_equal(decisions(by), logits[:, 0] > 0)
    assert 0 < decisions(by).sum() < len(X)


def test_one_logit_is_calibrated_measured_and_exported_by_its_sign(tmp_path):
    model = Net(torch.sigmoid, classes=1)
    model.last.bias.data -= float(model.logits(X).median())
    labels = (model.logits(X)[:, 0] > 0).numpy().astype(np.int64)
    data = Dataset(X.numpy(), labels, "two classes", "none", class_names=("no", "yes"))
    network = calibrate(capture(model, data), data, Static(updates=10, rounds=2), steps=2, device="cpu")
    assert network.class_names == ("no", "yes")
    trace = simulate(network, data, 64, device="cpu")
    np.testing.assert_array_equal(trace.accuracy(labels)[-1], ((trace.logits[-1][:, 0] > 0) == labels).mean())
    assert trace.accuracy(labels)[-1] > 0.6
    bundle = export(network, tmp_path / "bundle", 2, golden=data, device="cpu")
    told = json.loads((bundle.path / "manifest.json").read_text())
    assert (told["left_out"], told["readout_shape"]) == (["sigmoid"], None)
    expected = int(((trace.logits[1][:, 0] > 0) == labels).sum())
    assert told["golden_correct"] == expected
    assert load(bundle.path).network.left_out == ("sigmoid",)


def test_the_shape_of_an_output_stands_in_the_bundle(tmp_path):
    model = Net(nn.PixelShuffle(2), images=True, classes=8)
    bundle = export(capture(model, X), tmp_path / "bundle", 2, golden=X.numpy(), device="cpu")
    network = load(bundle.path).network
    assert (network.readout_shape, network.left_out) == ((8, 4, 4), ("pixel_shuffle",))
    told = json.loads((bundle.path / "manifest.json").read_text())
    assert (told["left_out"], told["readout_shape"]) == (["pixel_shuffle"], [8, 4, 4])


REFUSED = {
    "softmax over the batch": (lambda z: F.softmax(z, 0), False, "softmax"),
    "softmax over height": (lambda z: F.softmax(z, 2), True, "softmax"),
    "softmax over width": (lambda z: F.softmax(z, -1), True, "softmax"),
    "softmax read again": (lambda z: F.softmax(z, 1) + z, False, "softmax"),
    "a gate at the end": (lambda z: z * torch.sigmoid(z), False, "sigmoid"),
    "one class of several": (lambda z: z[:, 0], False, "select"),
    "images and samples on one axis": (lambda z: z.flatten(0), False, "flatten"),
    "two tensors": (lambda z: (z, 2 * z), False, "output"),
    "two in a dictionary": (lambda z: {"out": z, "aux": 2 * z}, False, "output"),
}


@pytest.mark.parametrize(("end", "images", "op"), REFUSED.values(), ids=REFUSED)
def test_ends_that_are_refused(end, images, op):
    result = check_model(Net(end, images), X)
    assert [f.op for f in result.blockers][:1] == [op]
    assert result.blockers[0].fix


def test_a_network_that_differs_is_noticed_behind_the_softmax():
    model, other = Net(nn.Softmax(1)), Net(nn.Softmax(1))
    other.last.weight.data[0] *= 1.5
    with pytest.raises(ParityError, match="does not compute what the module does"):
        check_agreement(other, captured(model, X, check_options()), X.numpy(), device="cpu")
