"""Counter-based Gumbel noise has the right distribution and is a pure function of its key."""

from __future__ import annotations

import math

import torch
from scipy import stats

from search.noise import gumbel_noise, row_key


def test_noise_is_standard_gumbel_and_uncorrelated() -> None:
    keys_R = torch.tensor([row_key(1, f"p{i}", 0, 0) for i in range(400)])
    ids_RK = torch.arange(100).expand(400, 100)
    noise_RK = gumbel_noise(keys_R, 3, ids_RK)
    assert stats.kstest(noise_RK.flatten().numpy(), stats.gumbel_r.cdf).pvalue > 1e-3
    later_RK = gumbel_noise(keys_R, 4, ids_RK)
    for other in (later_RK, noise_RK.roll(1, 0), noise_RK.roll(1, 1)):
        correlation = torch.corrcoef(torch.stack([noise_RK.flatten(), other.flatten()]))[0, 1]
        assert abs(float(correlation)) < 4 / math.sqrt(noise_RK.numel())


def test_noise_depends_on_the_key_alone() -> None:
    keys = torch.tensor([row_key(1, "p", 2, i) for i in range(6)])
    whole = gumbel_noise(keys, 5, torch.arange(50).expand(6, 50))
    part = gumbel_noise(keys[4:5], 5, torch.tensor([[7, 3, 49]]))
    assert part.tolist() == [[whole[4, 7], whole[4, 3], whole[4, 49]]]
    names = [(1, "p", 2, 3), (2, "p", 2, 3), (1, "q", 2, 3), (1, "p", 3, 3), (1, "p", 2, 4)]
    assert len({row_key(*name) for name in names}) == len(names)
    assert row_key(1, "p", 23, 4) != row_key(1, "p", 2, 34)
