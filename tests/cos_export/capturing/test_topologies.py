"""Well-known networks, narrow and written in plain PyTorch: each converts, or every obstacle in it is named."""

import itertools

import nir
import numpy as np
import pytest
import torch
from capturing_proof import compare, prove_relu, randomise
from narrowing import of_type, present
from torch import nn
from torch.nn import functional as F

from cos_export.capturing import capture, check_model
from cos_export.errors import CaptureError
from cos_export.simulation import simulate

SHAPE = (3, 16, 16)


def conv_norm(inputs, outputs, kernel=3, stride=1, groups=1, act=nn.ReLU):
    layers = [
        nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False),
        nn.BatchNorm2d(outputs),
    ]
    return nn.Sequential(*layers, *([act(inplace=True)] if act else []))


# --- ResNet-50, with fewer blocks: bottlenecks, one ReLU module for three calls ------------------------


class Bottleneck(nn.Module):
    def __init__(self, inputs, width, stride=1):
        super().__init__()
        outputs = 4 * width
        self.conv1, self.bn1 = nn.Conv2d(inputs, width, 1, bias=False), nn.BatchNorm2d(width)
        self.conv2, self.bn2 = nn.Conv2d(width, width, 3, stride, 1, bias=False), nn.BatchNorm2d(width)
        self.conv3, self.bn3 = nn.Conv2d(width, outputs, 1, bias=False), nn.BatchNorm2d(outputs)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = None
        if stride != 1 or inputs != outputs:
            self.downsample = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))

    def forward(self, x):
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.relu(self.bn2(self.conv2(out)))
        out = self.bn3(self.conv3(out))
        out += x if self.downsample is None else self.downsample(x)
        return self.relu(out)


class ResNet(nn.Module):
    def __init__(self, padding=0, width=4):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, width, 3, padding=1, bias=False), nn.BatchNorm2d(width)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool: nn.Module = nn.MaxPool2d(3, 2, padding)
        layers, inputs = [], width
        for stage, count in enumerate((1, 2, 1, 1)):
            for block in range(count):
                layers.append(Bottleneck(inputs, width * 2**stage, 2 if stage and not block else 1))
                inputs = 4 * width * 2**stage
        self.layers, self.avgpool, self.fc = nn.Sequential(*layers), nn.AdaptiveAvgPool2d((1, 1)), nn.Linear(inputs, 3)

    def forward(self, x):
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        return self.fc(torch.flatten(self.avgpool(self.layers(x)), 1))


def test_resnet_without_its_pool():
    model = ResNet()
    model.maxpool = nn.AvgPool2d(2)
    network = prove_relu(model, SHAPE, per_channel=True)
    assert len(network.layers) == 16
    assert not any("bn" in name or "downsample_1" in name for name in network.graph.nodes)


def test_resnet_with_the_pool_averaged():
    assert len(prove_relu(ResNet(), SHAPE, max_pool="average").layers) == 16


def test_resnet_as_it_is_needs_thresholds_and_no_more():
    result = check_model(ResNet(padding=1), torch.rand(1, *SHAPE))
    assert [f.op for f in result.blockers] == ["relu_"] * 16
    # Four rounds for a window of 3 x 3, two along each axis.
    assert len(prove_relu(ResNet(padding=1), SHAPE, per_channel=True).layers) == 16 + 4
    assert len(prove_relu(ResNet(padding=1), SHAPE, max_pool="average").layers) == 16


# --- VGG-19 -------------------------------------------------------------------------------------------


def vgg19(pool):
    layers, inputs = [], 3
    for width, count in ((4, 2), (8, 2), (12, 4), (16, 4), (16, 4)):
        for _ in range(count):
            layers += [nn.Conv2d(inputs, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU(True)]
            inputs = width
        layers.append(pool(2, 2))
    classifier = [nn.Linear(16, 24), nn.ReLU(True), nn.Dropout(), nn.Linear(24, 24), nn.ReLU(True), nn.Dropout()]
    return nn.Sequential(nn.Sequential(*layers), nn.Flatten(), nn.Sequential(*classifier, nn.Linear(24, 3)))


def test_vgg19():
    # Eighteen activations, and two rounds of differences for each of the five pools.
    assert len(prove_relu(vgg19(nn.MaxPool2d), (3, 32, 32)).layers) == 18 + 2 * 5
    result = check_model(vgg19(nn.MaxPool2d), torch.rand(1, 3, 32, 32), assume_thresholds=True, max_pool="average")
    assert result.passed
    assert sum("max pooling" in present(f.warning) for f in result.warnings) == 5
    assert sum("threshold" in present(f.warning) for f in result.warnings) == 18


# --- DenseNet -----------------------------------------------------------------------------------------


class DenseLayer(nn.Module):
    def __init__(self, inputs, growth):
        super().__init__()
        self.norm1, self.relu1 = nn.BatchNorm2d(inputs), nn.ReLU(inplace=True)
        self.conv1 = nn.Conv2d(inputs, 2 * growth, 1, bias=False)
        self.norm2, self.relu2 = nn.BatchNorm2d(2 * growth), nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(2 * growth, growth, 3, padding=1, bias=False)

    def forward(self, features):
        x = self.conv1(self.relu1(self.norm1(torch.cat(features, 1))))
        return self.conv2(self.relu2(self.norm2(x)))


class DenseNet(nn.Module):
    def __init__(self, layers=(3, 4), growth=4, width=6, pooled=False):
        super().__init__()
        self.stem: nn.Module = nn.Conv2d(3, width, 3, padding=1, bias=False)
        if pooled:
            norm = [nn.BatchNorm2d(width), nn.ReLU(inplace=True)]
            self.stem = nn.Sequential(self.stem, *norm, nn.MaxPool2d(3, 2, 1))
        self.blocks, self.transitions = nn.ModuleList(), nn.ModuleList()
        for count in layers:
            self.blocks.append(nn.ModuleList(DenseLayer(width + i * growth, growth) for i in range(count)))
            width += count * growth
            norm = [nn.BatchNorm2d(width), nn.ReLU(inplace=True)]
            self.transitions.append(nn.Sequential(*norm, nn.Conv2d(width, width // 2, 1, bias=False), nn.AvgPool2d(2)))
            width //= 2
        self.norm, self.head = nn.BatchNorm2d(width), nn.Linear(width, 3)

    def forward(self, x):
        x = self.stem(x)
        for block, transition in zip(self.blocks, self.transitions, strict=True):
            features = [x]
            for layer in block.children():
                features.append(layer(features))
            x = transition(torch.cat(features, 1))
        return self.head(F.relu(self.norm(x), inplace=True).mean((2, 3)))


def test_densenet():
    network = prove_relu(DenseNet(), SHAPE, per_channel=True)
    assert len(network.layers) == 2 * 7 + 2 + 1


def test_densenet_with_the_pool_of_its_stem():
    # The joined features are a sum of the pool's terms and of what each layer adds.
    assert len(prove_relu(DenseNet((2, 2), pooled=True), SHAPE, per_channel=True).layers) == 2 * 4 + 2 + 1 + 1 + 4


def test_densenet_stays_of_reasonable_size():
    layers = 12
    model, x = DenseNet((layers,)), torch.rand(1, *SHAPE)
    keys = [f.module for f in check_model(model, x).blockers]
    network = capture(model, x, thresholds={key or "relu": 1.0 for key in keys})
    # A join before an activation costs a 1x1 synapse for each part, and nothing where a synapse follows.
    parts = sum(range(1, layers + 2))
    assert len(network.graph.nodes) < parts + 6 * layers
    weights = sum(node.weight.size for node in network.graph.nodes.values() if hasattr(node, "weight"))
    squares = sum((6 + 4 * i) ** 2 for i in range(layers + 1))
    assert weights < sum(p.numel() for p in model.parameters()) + squares + 10_000


# --- SqueezeNet, Inception ----------------------------------------------------------------------------


class Fire(nn.Module):
    def __init__(self, inputs, squeeze, expand):
        super().__init__()
        self.squeeze, self.squeeze_activation = nn.Conv2d(inputs, squeeze, 1), nn.ReLU(inplace=True)
        self.expand1x1, self.expand1x1_activation = nn.Conv2d(squeeze, expand, 1), nn.ReLU(inplace=True)
        self.expand3x3, self.expand3x3_activation = nn.Conv2d(squeeze, expand, 3, padding=1), nn.ReLU(inplace=True)

    def forward(self, x):
        x = self.squeeze_activation(self.squeeze(x))
        left, right = self.expand1x1(x), self.expand3x3(x)
        return torch.cat([self.expand1x1_activation(left), self.expand3x3_activation(right)], 1)


def test_squeezenet():
    stem = [nn.Conv2d(3, 6, 3, 2), nn.ReLU(inplace=True), nn.MaxPool2d(3, 2, ceil_mode=True)]
    last = [nn.Dropout(), nn.Conv2d(12, 3, 1), nn.ReLU(inplace=True), nn.AdaptiveAvgPool2d((1, 1)), nn.Flatten()]
    fires = nn.Sequential(Fire(6, 3, 4), nn.MaxPool2d(3, 2, ceil_mode=True), Fire(8, 3, 6))
    model = nn.Sequential(*stem, *fires, *last)
    present(of_type(model[7], nn.Conv2d).bias).data.fill_(0.1)
    network = prove_relu(model, SHAPE)
    # Each expansion is read part by part: nothing is spent on the joins.
    assert not any(name.endswith("placed") and "expand" in name for name in network.graph.nodes if "8" not in name)


def test_inception():
    def uneven(inputs, outputs, kernel):
        padding = (kernel[0] // 2, kernel[1] // 2)
        norm = [nn.BatchNorm2d(outputs), nn.ReLU()]
        return nn.Sequential(nn.Conv2d(inputs, outputs, kernel, padding=padding, bias=False), *norm)

    class Block(nn.Module):
        def __init__(self, inputs, pool=F.avg_pool2d):
            super().__init__()
            self.pool = pool
            self.b1 = conv_norm(inputs, 3, 1)
            self.b2 = nn.Sequential(conv_norm(inputs, 3, 1), conv_norm(3, 4, 3))
            self.b3 = nn.Sequential(conv_norm(inputs, 2, 1), uneven(2, 3, (1, 7)), uneven(3, 3, (7, 1)))
            self.b4 = conv_norm(inputs, 2, 1)

        def forward(self, x):
            pooled = self.pool(x, kernel_size=3, stride=1, padding=1)
            return torch.cat([self.b1(x), self.b2(x), self.b3(x), self.b4(pooled)], 1)

    # GoogLeNet takes the maximum in its blocks, Inception-v3 the average; between them both pool the joined parts.
    blocks = nn.Sequential(Block(5), Block(12, F.max_pool2d), nn.MaxPool2d(3, 2), Block(12))
    model = nn.Sequential(conv_norm(3, 5), blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(12, 3))
    prove_relu(model, SHAPE, per_channel=True)


# --- AlexNet, M5 --------------------------------------------------------------------------------------


def test_alexnet():
    def block(inputs, outputs, kernel, stride=1):
        return [nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2), nn.ReLU(inplace=True)]

    features = nn.Sequential(
        *[*block(3, 4, 5, 2), nn.MaxPool2d(3, 2), *block(4, 6, 5), nn.MaxPool2d(3, 2)],
        *[*block(6, 8, 3), *block(8, 6, 3), nn.MaxPool2d(3, 2), nn.AdaptiveAvgPool2d((1, 1)), nn.Flatten()],
    )
    classifier = nn.Sequential(nn.Dropout(), nn.Linear(6, 8), nn.ReLU(inplace=True), nn.Dropout(), nn.Linear(8, 3))
    network = prove_relu(nn.Sequential(features, classifier), (3, 33, 33))
    assert len(network.layers) == 5 + 3 * 4


def test_m5_over_one_axis():
    def block(inputs, outputs, kernel, stride=1):
        return [nn.Conv1d(inputs, outputs, kernel, stride), nn.BatchNorm1d(outputs), nn.ReLU(), nn.MaxPool1d(4)]

    class M5(nn.Module):
        def __init__(self):
            super().__init__()
            self.features = nn.Sequential(*block(1, 4, 16, 4), *block(4, 4, 3), *block(4, 6, 3))
            self.fc1 = nn.Linear(6, 3)

        def forward(self, x):
            x = self.features(x)
            x = F.avg_pool1d(x, x.shape[-1])
            return self.fc1(x.flatten(1))

    network = prove_relu(M5(), (1, 1000))
    assert len(network.layers) == 3 + 3 * 2


# --- ShuffleNet ---------------------------------------------------------------------------------------


def channel_shuffle(x, groups):
    batch, channels, height, width = x.size()
    x = x.view(batch, groups, channels // groups, height, width)
    return torch.transpose(x, 1, 2).contiguous().view(batch, channels, height, width)


class ShuffleUnitV1(nn.Module):
    def __init__(self, channels, groups=2):
        super().__init__()
        hidden = channels // 2
        self.groups = groups
        self.compress = conv_norm(channels, hidden, 1, groups=groups)
        self.depthwise = conv_norm(hidden, hidden, 3, groups=hidden, act=None)
        self.expand = conv_norm(hidden, channels, 1, groups=groups, act=None)

    def forward(self, x):
        out = self.depthwise(channel_shuffle(self.compress(x), self.groups))
        return F.relu(x + self.expand(out))


class ShuffleUnitV2(nn.Module):
    def __init__(self, inputs, outputs, stride):
        super().__init__()
        half = outputs // 2
        self.stride = stride
        self.branch1 = nn.Sequential()
        if stride > 1:
            self.branch1 = nn.Sequential(conv_norm(inputs, inputs, 3, stride, inputs, None), conv_norm(inputs, half, 1))
        first = inputs if stride > 1 else half
        self.branch2 = nn.Sequential(
            conv_norm(first, half, 1), conv_norm(half, half, 3, stride, half, None), conv_norm(half, half, 1)
        )

    def forward(self, x):
        if self.stride == 1:
            left, right = x.chunk(2, dim=1)
            out = torch.cat((left, self.branch2(right)), dim=1)
        else:
            out = torch.cat((self.branch1(x), self.branch2(x)), dim=1)
        return channel_shuffle(out, 2)


def test_shufflenet_v1():
    units = nn.Sequential(ShuffleUnitV1(8), ShuffleUnitV1(8))
    model = nn.Sequential(conv_norm(3, 8), units, nn.AvgPool2d(2), nn.Flatten(), nn.Linear(512, 3))
    prove_relu(model, SHAPE, per_channel=True)


def test_shufflenet_v2():
    units = [ShuffleUnitV2(8, 12, 2), *(ShuffleUnitV2(12, 12, 1) for _ in range(3)), ShuffleUnitV2(12, 16, 2)]
    model = nn.Sequential(conv_norm(3, 8), *units, conv_norm(16, 12, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    prove_relu(nn.Sequential(model, nn.Linear(12, 3)), SHAPE, per_channel=True)


# --- MobileNetV2 --------------------------------------------------------------------------------------


class InvertedResidual(nn.Module):
    def __init__(self, inputs, outputs, stride, expand):
        super().__init__()
        hidden = inputs * expand
        layers = [] if expand == 1 else [conv_norm(inputs, hidden, 1, act=nn.ReLU6)]
        layers.append(conv_norm(hidden, hidden, 3, stride, hidden, nn.ReLU6))
        self.conv = nn.Sequential(*layers, conv_norm(hidden, outputs, 1, act=None))
        self.residual = stride == 1 and inputs == outputs

    def forward(self, x):
        return x + self.conv(x) if self.residual else self.conv(x)


def mobilenet_v2():
    settings = [(4, 6, 1, 1), (6, 6, 1, 3), (6, 6, 1, 3), (6, 8, 2, 3), (8, 8, 1, 3), (8, 8, 1, 3)]
    blocks = [InvertedResidual(inputs, outputs, stride, expand) for inputs, outputs, stride, expand in settings]
    last = [conv_norm(8, 16, 1, act=nn.ReLU6), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(0.2), nn.Linear(16, 3)]
    return nn.Sequential(conv_norm(3, 4, 3, 2, act=nn.ReLU6), *blocks, *last)


def test_mobilenet_v2_needs_no_data():
    torch.manual_seed(0)
    model, x = randomise(mobilenet_v2().eval()), torch.rand(5, *SHAPE) * 2 - 0.5
    network = capture(model, x)
    compare(network, model, x)
    assert len(network.layers) == 1 + 1 + 5 * 2 + 1
    assert all((spec.threshold == 6).all() for spec in network.neurons.values())
    # The streams between the blocks are sums of projections: the readers add the wires, and no neuron stands between.
    assert len(network.predecessors["layer_3_conv_0_0"]) == 2
    affine = [type(network.graph.nodes[name]) for name in network.predecessors["layer_3_conv_0_0"]]
    assert affine == [nir.Conv2d, nir.Conv2d]
    trace = simulate(network, x, 4, device="cpu")
    assert all(np.isin(spikes, (0, 1)).all() for spikes in trace.spikes.values())


# --- all of them as they are published ------------------------------------------------------------------


class SqueezeExcite(nn.Module):
    def __init__(self):
        super().__init__()
        self.pool, self.fc1, self.fc2 = nn.AdaptiveAvgPool2d(1), nn.Conv2d(4, 2, 1), nn.Conv2d(2, 4, 1)

    def forward(self, x):
        return x * torch.sigmoid(self.fc2(F.relu(self.fc1(self.pool(x)))))


OBSTACLES = {
    "squeeze and excite": (SqueezeExcite(), ["sigmoid", "mul"]),
    "attention": (nn.MultiheadAttention(4, 1), ["forward"]),
    "transformer layer": (nn.Sequential(nn.Flatten(2), nn.TransformerEncoderLayer(64, 2, 16)), None),
    "recurrent": (nn.Sequential(nn.Flatten(2), nn.LSTM(64, 4)), None),
    "upsampling": (nn.Sequential(nn.Upsample(scale_factor=2), nn.ConvTranspose2d(4, 4, 2)), None),
    "norms": (nn.Sequential(nn.InstanceNorm2d(4), nn.GroupNorm(2, 4), nn.LayerNorm(8), nn.LocalResponseNorm(2)), None),
}


@pytest.mark.parametrize(("module", "ops"), OBSTACLES.values(), ids=OBSTACLES)
def test_what_cannot_be_converted_is_listed_and_never_a_traceback(module, ops):
    model = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU6(), nn.AvgPool2d(2), module)
    result = check_model(model, torch.rand(1, *SHAPE), assume_thresholds=True)
    assert not result.passed
    assert all(f.fix for f in result.blockers)
    blocking = [f.op for f in result.blockers]
    assert blocking[: len(ops or [])] == (ops or [])
    assert not any("failed" in present(f.blocker) and "conversion" in present(f.blocker) for f in result.blockers)


def test_every_pair_of_operations_converts_or_says_why_not():
    steps = [
        lambda x: F.relu6(x),
        lambda x: torch.cat((x, x), 1),
        lambda x: x.chunk(2, 1)[1],
        lambda x: F.avg_pool2d(x, 2),
        lambda x: F.max_pool2d(x, 2),
        lambda x: channel_shuffle(x, 2),
        lambda x: x.unflatten(1, (2, -1)),
    ]

    class Two(nn.Module):
        def __init__(self, first, second):
            super().__init__()
            self.conv, self.first, self.second = nn.Conv2d(3, 4, 1), first, second

        def forward(self, x):
            # What only moves numbers at the end would be left out, so something else ends it.
            return 2 * self.second(self.first(F.relu6(self.conv(x)))).flatten(1)

    refused = 0
    for first, second in itertools.product(steps, repeat=2):
        torch.manual_seed(0)
        model, x = randomise(Two(first, second)), torch.rand(5, 3, 8, 8) * 2 - 1
        try:
            network = capture(model, x)
        except CaptureError as error:
            assert "report this model" not in str(error)
            refused += 1
            continue
        compare(network, model, x)
    assert 0 < refused < len(steps) ** 2 / 2
