"""What the first layer fires is the quantised activation, exactly."""

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from narrowing import present
from torch import nn

from cos_export.capturing import capture
from cos_export.qcfs import QCFS
from cos_export.simulation import simulate

dyadic = st.integers(-64, 64).map(lambda n: n / 16)
"""Numbers whose sums and products are exact in float32, in any order."""


@given(
    levels=st.sampled_from([1, 2, 4, 8]),
    threshold=st.sampled_from([0.5, 1.0, 2.0, 4.0]),
    weights=st.lists(dyadic, min_size=12, max_size=12),
    biases=st.lists(dyadic, min_size=3, max_size=3),
    inputs=st.lists(dyadic, min_size=8, max_size=8),
)
@settings(max_examples=25, deadline=None)
def test_with_as_many_steps_as_levels_the_spike_count_is_the_activation(levels, threshold, weights, biases, inputs):
    first, act = nn.Linear(4, 3), QCFS(levels, threshold)
    first.weight.data = torch.tensor(weights).reshape(3, 4)
    first.bias.data = torch.tensor(biases)
    x = torch.tensor(inputs).reshape(2, 4)
    network = capture(nn.Sequential(first, act, nn.Linear(3, 2)), x)
    with torch.no_grad():
        activation = act(first(x)).numpy()
    counts = simulate(network, x, levels, device="cpu").spikes["layer_1"].sum(axis=0)
    np.testing.assert_array_equal(counts, activation * levels / threshold)


def test_spikes_of_a_convolution_with_batch_norm_count_the_activation():
    torch.manual_seed(0)
    conv, act = nn.Conv2d(1, 4, 3), QCFS(8, 1.0)
    conv.weight.data = torch.randint(-8, 8, conv.weight.shape) / 16
    present(conv.bias).data = torch.randint(-8, 8, present(conv.bias).shape) / 16
    norm = nn.BatchNorm2d(4, eps=0.0)
    present(norm.running_var).fill_(0.25)
    present(norm.running_mean).fill_(-0.5)
    model = nn.Sequential(conv, norm, act, nn.Flatten(), nn.Linear(64, 2)).eval()
    x = torch.randint(0, 16, (3, 1, 6, 6)) / 16
    with torch.no_grad():
        activation = model[:3](x).numpy()
    assert 0 < activation.mean() < 1
    counts = simulate(capture(model, x), x, 8, device="cpu").spikes["layer_2"].sum(axis=0)
    np.testing.assert_array_equal(counts, activation * 8)
