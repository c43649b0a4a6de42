"""Advantages and PPO's losses, by hand."""

from __future__ import annotations

import math

import pytest
import torch

from trainer.ppo.advantages import KLController, Moments, gae, kl_penalties, moments, whiten
from trainer.ppo.losses import explained_variance, policy_loss, value_loss

T = torch.tensor


def test_gae_by_hand() -> None:
    # one row: a prompt position, three generated tokens, padding. gamma 1 then 0.5 then 1.
    rewards = T([[9.0, 0.0, 1.0, 2.0, 9.0]])
    values = T([[9.0, 0.5, 1.0, 0.5, 9.0]])
    mask = T([[0.0, 1.0, 1.0, 1.0, 0.0]])
    discount = T([[1.0, 1.0, 0.5, 1.0, 1.0]])
    advantages, returns = gae(rewards, values, mask, discount, 0.5)
    # delta3 = 2 - 0.5 = 1.5; delta2 = 1 + 0.5 x 0.5 - 1 = 0.25; delta1 = 0 + 1 - 0.5 = 0.5
    # A3 = 1.5; A2 = 0.25 + 0.5 x 0.5 x 1.5 = 0.625; A1 = 0.5 + 1 x 0.5 x 0.625 = 0.8125
    assert advantages.tolist() == [[0.0, 0.8125, 0.625, 1.5, 0.0]]
    assert returns.tolist() == [[0.0, 1.3125, 1.625, 2.0, 0.0]]
    # lambda 1 and no discount: the returns are the sums of later rewards
    _, returns = gae(rewards, values, mask, torch.ones_like(discount), 1.0)
    assert returns.tolist() == [[0.0, 3.0, 3.0, 2.0, 0.0]]
    # lambda 0: one step ahead
    advantages, _ = gae(rewards, values, mask, torch.ones_like(discount), 0.0)
    assert advantages.tolist() == [[0.0, 0.5, 0.5, 1.5, 0.0]]


def test_potential_shaping_only_moves_the_baseline_without_discounts() -> None:
    """Values that start at Phi equal shaped rewards with values of 0 (Wiewiora 2003)."""
    phi = T([[0.2, 0.6, 0.9]])  # before each token; 0 at the prompt in the shaped case
    outcome = T([[0.0, 0.0, 1.0]])
    ones = torch.ones_like(phi)
    shaped = outcome + torch.cat([phi[:, 1:], torch.zeros(1, 1)], 1) - phi
    for gae_lambda in (0.0, 0.5, 1.0):
        plain, _ = gae(outcome, phi, ones, ones, gae_lambda)
        other, _ = gae(shaped, torch.zeros_like(phi), ones, ones, gae_lambda)
        assert torch.allclose(plain, other, atol=1e-6)


def test_whitening_is_over_the_whole_batch_however_it_is_split() -> None:
    values, mask = T([[1.0, 2.0, 7.0], [3.0, 7.0, 6.0]]), T([[1.0, 1.0, 0.0], [1.0, 0.0, 1.0]])
    parts = [moments(values[i : i + 1], mask[i : i + 1]) for i in range(2)]
    over = Moments(
        count=sum(p.count for p in parts),
        total=sum(p.total for p in parts),
        squares=sum(p.squares for p in parts),
    )
    # 1, 2, 3, 6: mean 3, variance (4 + 1 + 0 + 9) / 4 = 3.5
    assert (over.mean, over.variance) == (3.0, 3.5)
    root = math.sqrt(3.5)
    expected = [[-2 / root, -1 / root, 0.0], [0.0, 0.0, 3 / root]]
    assert torch.allclose(whiten(values, mask, over), T(expected), atol=1e-6)
    same = moments(torch.ones(1, 3), torch.ones(1, 3))
    assert whiten(torch.ones(1, 3), torch.ones(1, 3), same).tolist() == [[0.0, 0.0, 0.0]]


def test_clipping_by_hand() -> None:
    # ratios 1.5 and 0.5 with clip 0.2, each with an advantage of either sign
    old = torch.zeros(1, 4)
    new = T([[math.log(1.5), math.log(1.5), math.log(0.5), math.log(0.5)]])
    advantages = T([[1.0, -1.0, 1.0, -1.0]])
    mask = torch.ones(1, 4)
    loss, ratio = policy_loss(new, old, advantages, mask, (0.2, 0.2), 4.0)
    # min(1.5, 1.2) = 1.2; min(-1.5, -1.2) = -1.5; min(0.5, 0.8) = 0.5; min(-0.5, -0.8) = -0.8
    assert float(loss) == pytest.approx(-(1.2 - 1.5 + 0.5 - 0.8) / 4)
    assert torch.allclose(ratio, T([[1.5, 1.5, 0.5, 0.5]]))
    # what lies outside the mask may be anything
    wild = new.clone()
    wild[0, 3] = float("inf")
    wild = torch.nan_to_num(wild, posinf=1e30)
    masked, _ = policy_loss(wild, old, advantages, T([[1.0, 1.0, 1.0, 0.0]]), (0.2, 0.2), 3.0)
    assert float(masked) == pytest.approx(-(1.2 - 1.5 + 0.5) / 3)


def test_clipped_tokens_have_no_gradient() -> None:
    new = T([[math.log(1.5), math.log(1.5)]]).requires_grad_()
    advantages, one = T([[1.0, -1.0]]), torch.ones(1, 2)
    loss, _ = policy_loss(new, torch.zeros(1, 2), advantages, one, (0.2, 0.2), 2.0)
    loss.backward()
    # the first is clipped; the second's gradient is ratio x -A / count = 1.5 / 2
    assert new.grad is not None and new.grad.tolist() == [[0.0, pytest.approx(0.75)]]


def test_value_loss_by_hand() -> None:
    values, old, returns = T([[1.0, 0.0]]), T([[0.0, 0.0]]), T([[0.5, 1.0]])
    mask = torch.ones(1, 2)
    # unclipped errors 0.25 and 1; clipped to 0.2: (0.2 - 0.5)^2 = 0.09, so the maximum is 0.25
    assert float(value_loss(values, old, returns, mask, 0.2, 2.0)) == pytest.approx(1.25 / 4)
    # the return is 0: unclipped 0.01, clipped to 0.05: 0.0025
    near = value_loss(T([[0.1]]), T([[0.0]]), T([[0.0]]), torch.ones(1, 1), 0.05, 1.0)
    assert float(near) == pytest.approx(0.005)
    far = value_loss(T([[0.9]]), T([[0.0]]), T([[1.0]]), torch.ones(1, 1), 0.2, 1.0)
    assert float(far) == pytest.approx(0.32)  # (0.2 - 1)^2 / 2: no gain from going too far
    free = value_loss(T([[0.9]]), T([[0.0]]), T([[1.0]]), torch.ones(1, 1), 0.0, 1.0)
    assert float(free) == pytest.approx(0.005)


def test_kl_and_its_controller_by_hand() -> None:
    kl = kl_penalties(T([[-1.0, -2.0]]), T([[-1.5, -1.0]]), T([[1.0, 0.0]]))
    assert kl.tolist() == [[0.5, 0.0]]
    fixed = KLController(coefficient=0.1)
    fixed.update(100.0)
    assert fixed.coefficient == 0.1
    moving = KLController(coefficient=0.1, target=2.0)
    moving.update(2.2)  # error 0.1: x 1.01
    assert moving.coefficient == pytest.approx(0.101)
    moving.update(100.0)  # error clipped to 0.2
    assert moving.coefficient == pytest.approx(0.101 * 1.02)
    moving.update(0.0)
    assert moving.coefficient == pytest.approx(0.101 * 1.02 * 0.98)


def test_explained_variance_by_hand() -> None:
    returns = T([1.0, 2.0, 3.0])
    assert explained_variance(returns, returns) == 1.0
    assert explained_variance(torch.zeros(3), returns) == pytest.approx(0.0)
    assert explained_variance(-returns, returns) == pytest.approx(-3.0)  # Var(2R) = 4 Var(R)
    assert explained_variance(returns, torch.ones(3)) == 0.0
