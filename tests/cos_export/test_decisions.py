"""One logit for two classes decides, and differs from another, as the two logits (0, z) do."""

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from cos_export.decisions import class_count, class_logits, decisions
from cos_export.divergence import agreement, divergence

LOGITS = st.lists(st.floats(-20, 20, width=32), min_size=2, max_size=6)


def binary(p, q):
    """KL of two chances of class 1, from its definition."""
    return p * np.log(p / q) + (1 - p) * np.log((1 - p) / (1 - q))


@given(LOGITS, LOGITS)
def test_one_logit_is_two(one, other):
    count = min(len(one), len(other))
    a, b = (np.array(z, np.float32)[:count, None] for z in (one, other))
    np.testing.assert_array_equal(decisions(a), (a[:, 0] > 0).astype(int))
    p, q = (1 / (1 + np.exp(-z.astype(np.float64)))[:, 0] for z in (a, b))
    np.testing.assert_allclose(divergence(a, b), binary(p, q).mean(), rtol=1e-5, atol=1e-7)
    assert agreement(a, b) == ((a > 0) == (b > 0)).mean()


def test_several_logits_stay_as_they_are():
    z = np.array([[1, 3, 2], [5, 4, 0]], np.float32)
    assert class_logits(z) is z
    np.testing.assert_array_equal(decisions(z), [1, 0])
    assert [class_count(n) for n in (1, 2, 10)] == [2, 2, 10]


def test_tensors_as_arrays():
    z = torch.tensor([[0.5], [-1.0]])
    assert class_logits(z).tolist() == [[0.0, 0.5], [0.0, -1.0]]
    assert class_logits(z.numpy()).tolist() == class_logits(z).tolist()
