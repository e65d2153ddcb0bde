"""Every network of the zoo: published checkpoints load into it by name, and it can be captured."""

import re

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from cos_export import zoo
from cos_export.capturing import capture
from cos_export.errors import InputError
from cos_export.qcfs import QCFS
from cos_export.simulation import ann_logits
from cos_export.zoo.resnet import ResNet
from cos_export.zoo.vgg import VGG

BATCH_NORM = {"weight": 1, "bias": 1, "running_mean": 1, "running_var": 1}


def batch_norm(name, width):
    return {f"{name}.{key}": (width,) for key in BATCH_NORM} | {f"{name}.num_batches_tracked": ()}


def published_resnet(blocks, widths, classes, threshold="up"):
    """Names and shapes of a published checkpoint, written down from its layers."""
    shapes = {"conv1.0.weight": (widths[0], 3, 3, 3), **batch_norm("conv1.1", widths[0]), f"conv1.2.{threshold}": (1,)}
    inputs = widths[0]
    for stage, (count, width) in enumerate(zip(blocks, widths, strict=True)):
        for block in range(count):
            name = f"conv{stage + 2}_x.{block}"
            shapes[f"{name}.residual_function.0.weight"] = (width, inputs, 3, 3)
            shapes |= batch_norm(f"{name}.residual_function.1", width)
            shapes[f"{name}.residual_function.2.{threshold}"] = (1,)
            shapes[f"{name}.residual_function.3.weight"] = (width, width, 3, 3)
            shapes |= batch_norm(f"{name}.residual_function.4", width)
            if inputs != width:
                shapes[f"{name}.shortcut.0.weight"] = (width, inputs, 1, 1)
                shapes |= batch_norm(f"{name}.shortcut.1", width)
            shapes[f"{name}.relu.{threshold}"] = (1,)
            inputs = width
    return shapes | {"fc.weight": (classes, inputs), "fc.bias": (classes,)}


def published_vgg16(classes, features, threshold="up"):
    shapes: dict[str, tuple[int, ...]] = {}
    inputs = 3
    for stage, (count, width) in enumerate([(2, 64), (2, 128), (3, 256), (3, 512), (3, 512)]):
        for i in range(count):
            name = f"layer{stage + 1}"
            shapes |= {f"{name}.{4 * i}.weight": (width, inputs, 3, 3), f"{name}.{4 * i}.bias": (width,)}
            shapes |= batch_norm(f"{name}.{4 * i + 1}", width)
            shapes[f"{name}.{4 * i + 2}.{threshold}"] = (1,)
            inputs = width
    for i, (rows, columns) in {1: (4096, features), 4: (4096, 4096), 7: (classes, 4096)}.items():
        shapes |= {f"classifier.{i}.weight": (rows, columns), f"classifier.{i}.bias": (rows,)}
    return shapes | {f"classifier.2.{threshold}": (1,), f"classifier.5.{threshold}": (1,)}


def synthetic(shapes):
    generator = torch.Generator().manual_seed(0)
    return {
        key: torch.zeros((), dtype=torch.int64) if shape == () else torch.rand(shape, generator=generator) + 0.5
        for key, shape in shapes.items()
    }


WIDE = (64, 128, 256, 512)
PUBLISHED = {
    "resnet20": (published_resnet((3, 3, 3), (16, 32, 64), 10), {}),
    "resnet20 of 100 classes, thresh": (published_resnet((3, 3, 3), (16, 32, 64), 100, "thresh"), {"classes": 100}),
    "resnet18": (published_resnet((2, 2, 2, 2), WIDE, 10), {}),
    "resnet34 of 100 classes": (published_resnet((3, 4, 6, 3), WIDE, 100), {"classes": 100}),
    "vgg16 of 100 classes": (published_vgg16(100, 512), {"classes": 100}),
}


@pytest.mark.parametrize(("name", "shapes", "options"), [(k, *v) for k, v in PUBLISHED.items()], ids=PUBLISHED)
def test_published_names_load(tmp_path, name, shapes, options):
    state, path = synthetic(shapes), tmp_path / "w.pth"
    torch.save({f"module.{key}": value for key, value in state.items()} if "thresh" in name else state, path)
    model = zoo.build(name.split()[0], **options)
    zoo.load_weights(model, path)
    held = model.state_dict()
    assert len(held) == len(state)
    for key, value in state.items():
        ours = re.sub(r"\.(up|thresh)$", ".threshold", key)
        assert torch.equal(held[ours].reshape(value.shape), value)
    assert all(m.threshold.shape == () for m in model.modules() if isinstance(m, QCFS))


def test_the_imagenet_networks_have_their_shapes():
    with torch.device("meta"):
        vgg, resnet = zoo.entry("vgg16-imagenet").build(4, 1000), zoo.entry("resnet34-imagenet").build(4, 1000)
    held = {re.sub("threshold$", "up", key): tuple(value.shape) or (1,) for key, value in vgg.state_dict().items()}
    shapes = {key: shape or (1,) for key, shape in published_vgg16(1000, 512 * 7 * 7).items()}
    assert held == shapes
    assert vgg(torch.empty(1, 3, 224, 224, device="meta")).shape == (1, 1000)
    assert resnet(torch.empty(1, 3, 224, 224, device="meta")).shape == (1, 1000)
    assert sum(p.numel() for p in vgg.parameters()) == pytest.approx(138.4e6, rel=0.001)
    assert sum(p.numel() for p in resnet.parameters()) == pytest.approx(21.8e6, rel=0.001)


def test_every_key_that_does_not_fit_is_named(tmp_path):
    state = synthetic(published_resnet((3, 3, 3), (16, 32, 64), 10))
    del state["conv1.2.up"]
    state["conv2_x.0.relu.scale"] = torch.ones(1)
    state["conv3_x.0.shortcut.0.weight"] = torch.ones(32, 16, 3, 3)
    state["conv4_x.1.relu.up"] = torch.tensor([-1.0])
    save_file(state, tmp_path / "w.safetensors")
    with pytest.raises(InputError) as raised:
        zoo.load_weights(zoo.build("resnet20"), tmp_path / "w.safetensors")
    lines = str(raised.value).splitlines()[1:]
    assert sorted(line.strip() for line in lines) == [
        "missing: conv1.2.threshold ()",
        "not positive: the threshold conv4_x.1.relu.threshold is -1.0",
        "unexpected: conv2_x.0.relu.scale (1,)",
        "wrong shape: conv3_x.0.shortcut.0.weight is (32, 16, 3, 3) in the file and (32, 16, 1, 1) here",
    ]


def test_another_number_of_classes_is_said(tmp_path):
    save_file(synthetic(published_resnet((3, 3, 3), (16, 32, 64), 100)), tmp_path / "w.safetensors")
    with pytest.raises(InputError, match="The file has 100 classes and the network 10: build it with classes=100"):
        zoo.load_weights(zoo.build("resnet20"), tmp_path / "w.safetensors")


def test_a_threshold_of_each_channel_does_not_fit(tmp_path):
    state = synthetic(published_resnet((3, 3, 3), (16, 32, 64), 10)) | {"conv1.2.up": torch.ones(16)}
    save_file(state, tmp_path / "w.safetensors")
    with pytest.raises(InputError, match=r"wrong shape: conv1\.2\.threshold is \(16,\) in the file and \(\) here"):
        zoo.load_weights(zoo.build("resnet20"), tmp_path / "w.safetensors")


def randomised(model, shape):
    """The model after one batch in training mode, whose statistics batch norm then has, and two images."""
    images = torch.rand(8, *shape, generator=torch.Generator().manual_seed(1))
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 1.0
    with torch.no_grad():
        model.train()(images)
    return model.eval(), images[:2]


FINE = 1 << 12
# With many levels, a pre-activation that rounding moves over the edge of a step changes next to nothing.

NETWORKS = {
    **{
        name: (lambda name=name: zoo.build(name, levels=FINE), zoo.entry(name).input_shape)
        for name in zoo.names()
        if "-" not in name
    },
    "resnet18 with the large stem": (
        lambda: ResNet((2, 2, 2, 2), (16, 32, 64, 128), 10, FINE, large=True),
        (3, 64, 64),
    ),
    "vgg on large images": (lambda: VGG(((8, 8), (16,), (16,), (16,), (16,)), (32,), 64, 20, FINE), (3, 64, 64)),
}


@pytest.mark.parametrize(("build", "shape"), NETWORKS.values(), ids=NETWORKS)
def test_it_is_captured_and_answers_the_same(build, shape):
    torch.manual_seed(0)
    model, images = randomised(build(), shape)
    network = capture(model, images[:1])
    assert len(network.layers) == sum(isinstance(module, QCFS) for module in model.modules())
    with torch.no_grad():
        rounded = model(images).numpy()
        expected = model.double()(images.double()).numpy()
    # Dozens of layers of random weights magnify rounding. The module's own float32 is off by as much: by up to 0.6 % of
    # the logits' range in resnet34. Ours sums in another order and may be off by a few times that, and by no more.
    own = np.abs(rounded - expected).max()
    assert own < 0.01 * np.ptp(expected)
    actual = ann_logits(network, images, device="cpu")
    np.testing.assert_allclose(actual, expected, rtol=0, atol=4 * own)


def test_vgg9_is_small():
    model = zoo.build("vgg9")
    assert sum(isinstance(module, nn.Conv2d) for module in model.modules()) == 8
    assert sum(p.numel() for p in model.parameters()) < 1_200_000


def test_classes_and_levels():
    model = zoo.build("digits", classes=7, levels=2)
    assert model(torch.zeros(1, 1, 8, 8)).shape == (1, 7)
    with pytest.raises(InputError, match="classes must be at least 2"):
        zoo.build("digits", classes=1)
