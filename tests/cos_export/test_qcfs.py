"""The activation, its gradient, and that it stays one node."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from narrowing import present

from cos_export.errors import InputError
from cos_export.qcfs import QCFS, qcfs


def formula(z, threshold, levels):
    return threshold * torch.clamp(torch.floor(z * levels / threshold + 0.5) / levels, 0, 1)


def surrogate(z, threshold, levels):
    """The same function for autograd: the floor's rounding error enters as a constant."""
    clipped = torch.clamp(z / threshold, 0, 1)
    rounded = torch.floor(clipped * levels + 0.5) / levels
    return threshold * (clipped + (rounded - clipped).detach())


@given(
    st.lists(st.floats(-20, 20, width=32), min_size=1, max_size=20),
    st.floats(0.125, 16, width=32),
    st.integers(1, 16),
)
@settings(max_examples=60, deadline=None)
def test_the_activation_is_the_published_formula(values, threshold, levels):
    z, scale = torch.tensor(values), torch.tensor(threshold)
    assert torch.equal(qcfs(z, scale, levels), formula(z, scale, levels))


def test_a_pre_activation_on_the_edge_of_a_step_goes_up():
    steps = QCFS(4, threshold=2.0)(torch.tensor([-0.25, 0.2, 0.25, 0.75, 1.75, 9.0]))
    assert steps.tolist() == [0.0, 0.0, 0.5, 1.0, 2.0, 2.0]


@pytest.mark.parametrize("levels", [1, 4, 7])
def test_gradients_are_those_of_the_straight_through_surrogate(levels):
    z = torch.cat(
        [
            torch.linspace(-3, 6, 91, dtype=torch.float64),
            torch.tensor([0.0, 2.5], dtype=torch.float64),
        ]
    )
    weight = torch.rand(len(z), dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    gradients = []
    for function in (qcfs, surrogate):
        x = z.clone().requires_grad_()
        threshold = torch.tensor(2.5, dtype=torch.float64, requires_grad=True)
        (function(x, threshold, levels) * weight).sum().backward()
        gradients.append((x.grad, threshold.grad))
    (ours_z, ours_threshold), (theirs_z, theirs_threshold) = gradients
    assert torch.allclose(present(ours_z), present(theirs_z), rtol=1e-12)
    assert torch.allclose(present(ours_threshold), present(theirs_threshold), rtol=1e-12)


@pytest.mark.parametrize(("z", "expected"), [(-1.0, 0.0), (0.6, 0.25 - 0.3), (5.0, 1.0)])
def test_the_threshold_gradient_in_each_region(z, expected):
    layer = QCFS(4, threshold=2.0)
    layer(torch.tensor([z])).sum().backward()
    assert present(layer.threshold.grad).item() == pytest.approx(expected)


def plain_gradients(gradient, z, threshold, activation):
    """The equations of the docstring, with masks."""
    inside = (z >= 0) & (z <= threshold)
    slope = torch.where(inside, (activation - z) / threshold, (z > threshold).to(z.dtype))
    return gradient * inside, (gradient * slope).sum()


@pytest.mark.parametrize("shape", [(), (7,), (3, 5), (64, 8, 8, 8), (300, 16, 12, 12), (2, 300_000)], ids=str)
@pytest.mark.parametrize("layout", ["same", "other", "expanded"])
def test_gradients_in_blocks_are_those_of_the_plain_formula(shape, layout):
    generator = torch.Generator().manual_seed(0)
    threshold = torch.tensor(1.937)
    z, gradient = (2 * torch.randn(shape, generator=generator) for _ in range(2))
    if z.numel() > 4:
        z.view(-1)[:5] = torch.tensor([0.0, -0.0, 1.937, torch.nextafter(threshold, threshold + 1).item(), -1e-30])
    if len(shape) == 4:
        z = z.contiguous(memory_format=torch.channels_last)
        gradient = gradient.contiguous(
            memory_format=torch.channels_last if layout == "same" else torch.contiguous_format
        )
    if layout == "expanded":
        gradient = torch.ones(()).expand(shape)
    x, scale = z.clone().requires_grad_(), threshold.clone().requires_grad_()
    activation = qcfs(x, scale, 4)
    activation.backward(gradient)
    for_z, for_threshold = plain_gradients(gradient, z, threshold, activation.detach())
    assert torch.equal(present(x.grad), for_z)
    assert present(scale.grad).shape == ()
    assert present(scale.grad).item() == pytest.approx(for_threshold.item(), rel=1e-4, abs=1e-3)


def test_in_mixed_precision_it_stays_float32():
    layer = QCFS(4, threshold=2.0)
    z = torch.tensor([0.2499, 0.25, 1.0], requires_grad=True)
    with torch.autocast("cpu", torch.bfloat16):
        activation = layer(z.to(torch.bfloat16))
    assert activation.dtype == torch.float32
    activation.sum().backward()
    assert present(z.grad).tolist() == [1.0, 1.0, 1.0]
    assert present(layer.threshold.grad).dtype == torch.float32


def test_no_gradient_is_computed_where_none_is_needed():
    layer = QCFS(4)
    layer.threshold.requires_grad_(False)
    z = torch.ones(3, requires_grad=True)
    layer(z).sum().backward()
    assert layer.threshold.grad is None
    assert present(z.grad).tolist() == [1.0, 1.0, 1.0]


def test_it_stays_one_node_under_export():
    program = torch.export.export(torch.nn.Sequential(QCFS(4)), (torch.rand(2, 3),))
    assert [str(n.target) for n in program.graph.nodes if n.op == "call_function"] == ["cos_export.qcfs.default"]


def test_the_operator_passes_torch_own_checks():
    arguments = (torch.randn(3, 4, requires_grad=True), torch.tensor(1.5, requires_grad=True), 4)
    torch.library.opcheck(qcfs, arguments)


def test_state_dict_holds_the_threshold_alone():
    layer = QCFS(levels=8, threshold=3.0)
    assert {k: v.item() for k, v in layer.state_dict().items()} == {"threshold": 3.0}
    assert layer.threshold.shape == ()
    assert layer.levels == 8
    assert repr(layer) == "QCFS(levels=8, threshold=3)"


def test_the_default_threshold_is_eight():
    assert QCFS().threshold.item() == 8.0


@pytest.mark.parametrize("threshold", [0.0, -1.0, float("nan"), float("inf")])
def test_a_threshold_that_is_not_positive_is_refused(threshold):
    with pytest.raises(InputError, match="positive number"):
        QCFS(4, threshold=threshold)


def test_less_than_one_level_is_refused():
    with pytest.raises(InputError, match="levels must be at least 1"):
        QCFS(0)
