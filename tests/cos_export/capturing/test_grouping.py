"""Joins of many channels are brought onto one wire by groups: the same numbers, with far fewer weights."""

import nir
import numpy as np
import torch
from capturing_proof import compare, prove_relu, randomise
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from cos_export.capturing import capture
from cos_export.capturing.grouping import grouping_of
from cos_export.capturing.values import Term, Value
from cos_export.qcfs import QCFS


@settings(max_examples=200, deadline=None)
@given(st.lists(st.integers(1, 4), min_size=1, max_size=4), st.integers(2, 5), st.integers(0, 3), st.randoms())
def test_groups_place_each_channel_once(multiples, groups, kind, random):
    widths = [m * groups for m in multiples]
    rng = np.random.default_rng(random.randint(0, 2**31))
    parts = [Value((w, 1, 1), (Term(f"s{i}", w, tuple(rng.random(w) + 0.5)),)) for i, w in enumerate(widths)]
    if kind == 1:
        # The first part is added to itself under another name.
        parts[0] = parts[0].plus(Value((widths[0], 1, 1), (Term("other", widths[0], 2.0),)))
    joined = Value.joined(parts, (sum(widths), 1, 1))
    if kind == 2:
        joined = joined.gathered(rng.permutation(sum(widths)).tolist(), joined.shape)
    grouping = grouping_of(joined)
    if len(widths) > 1 and kind != 2:
        assert grouping is not None
        assert grouping.groups % groups == 0
    if grouping is None:
        return
    assert sorted(grouping.order) == list(range(sum(widths)))
    gain = rng.random(sum(widths))
    sent = {term.source: rng.random(term.width) for term in joined.terms}
    expected = np.zeros(sum(widths))
    for term in joined.terms:
        for channel, source in enumerate(term.picks()):
            if source >= 0:
                scale = term.scale if isinstance(term.scale, float) else term.scale[channel]
                expected[channel] += gain[channel] * scale * sent[term.source][source]
    actual = np.zeros(sum(widths))
    for term in joined.terms:
        x = torch.from_numpy(sent[term.source])[None, :, None, None]
        weight = torch.from_numpy(grouping.weight(term, gain))[:, :, None, None]
        actual += F.conv2d(x, weight, groups=grouping.groups)[0, :, 0, 0].numpy()
    np.testing.assert_allclose(actual, expected[grouping.order], rtol=1e-12)


class Join(nn.Module):
    """Convolutions of 48, 24 and 24 channels, joined; what is under test; a head."""

    def __init__(self, between, **modules):
        super().__init__()
        self.parts = nn.ModuleList(nn.Conv2d(2, n, 1) for n in (48, 24, 24))
        for name, module in modules.items():
            setattr(self, name, module)
        self.between = between
        self.eval()
        with torch.no_grad():
            self.head = nn.Linear(self.body(torch.zeros(1, 2, 4, 4)).shape[1], 3)

    def body(self, x):
        return self.between(self, torch.cat([part(x) for part in self.parts], 1)).mean((2, 3))

    def forward(self, x):
        return self.head(self.body(x))


def groups(network):
    return sorted(n.groups for n in network.graph.nodes.values() if isinstance(n, nir.Conv2d) and n.groups > 1)


def test_a_batch_norm_of_a_join():
    model = Join(lambda m, x: F.relu(m.norm(x)), norm=nn.BatchNorm2d(96))
    network = prove_relu(model, (2, 4, 4), per_channel=True)
    assert groups(network) == [24, 24, 24]
    parts = [network.graph.nodes[name] for name in ("norm", "norm_1", "norm_2")]
    assert [part.weight.shape for part in parts] == [(96, 2, 1, 1), (96, 1, 1, 1), (96, 1, 1, 1)]


def test_an_activation_of_a_join():
    model = Join(lambda m, x: F.relu(m.conv(F.relu(x))), conv=nn.Conv2d(96, 5, 3, padding=1))
    network = prove_relu(model, (2, 4, 4), per_channel=True)
    assert groups(network) == [24, 24, 24]
    assert len(network.layers) == 2


def test_readers_of_every_kind():
    def between(m, x):
        x = F.relu(x)
        return F.relu(m.depthwise(x) + x) + F.avg_pool2d(F.max_pool2d(x, 3, 1, 1), 3, 1, 1)

    model = Join(between, depthwise=nn.Conv2d(96, 96, 3, padding=1, groups=96))
    prove_relu(model, (2, 4, 4), per_channel=True)


def test_quantised_activations_keep_their_threshold():
    torch.manual_seed(0)
    model = Join(lambda m, x: m.act(m.norm(x)), norm=nn.BatchNorm2d(96), act=QCFS(4))
    randomise(model)
    x = torch.rand(4, 2, 4, 4)
    network = capture(model, x)
    compare(network, model, x)
    assert np.ptp(network.neurons["act"].threshold) == 0


def test_parts_without_common_groups_are_placed_by_dense_synapses():
    class Odd(Join):
        def body(self, x):
            parts = [part(x) for part in self.parts]
            return F.relu(torch.cat([parts[0][:, :31], parts[1], parts[2]], 1)).mean((2, 3))

    network = prove_relu(Odd(None), (2, 4, 4))
    assert groups(network) == []


def test_small_joins_stay_dense():
    class Small(Join):
        def body(self, x):
            return F.relu(torch.cat([part(x)[:, :8] for part in self.parts], 1)).mean((2, 3))

    assert groups(prove_relu(Small(None), (2, 4, 4))) == []


def test_a_shuffle_before_an_activation_is_free():
    class Shuffled(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.shuffle, self.head = nn.Conv2d(2, 6, 1), nn.ChannelShuffle(3), nn.Linear(6, 3)

        def forward(self, x):
            return self.head(F.relu(self.shuffle(self.conv(x))).mean((2, 3)))

    network = prove_relu(Shuffled(), (2, 4, 4), per_channel=True)
    assert len(network.graph.nodes) == 7
