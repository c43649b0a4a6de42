"""Counter-based Gumbel noise: the noise of a sample depends on its request alone.

The noise is a function of (seed, problem, node, index). Every triple of sample, token position and
token id has its own 64-bit counter. The finaliser of SplitMix64 (Steele et al. 2014) mixes the
counter, and the result becomes standard Gumbel noise. argmax(logits / temperature + noise) is then
a draw from the softmax (the Gumbel-max trick). This file exists because torch has no random
generator that takes a key per element.
Shapes: R rows, K candidate tokens.
"""

from __future__ import annotations

import hashlib

import torch
from torch import Tensor

_GOLDEN = -7046029254386353131  # 0x9E3779B97F4A7C15 as a signed 64-bit integer
_MIX_1 = -4658895280553007687  # 0xBF58476D1CE4E5B9
_MIX_2 = -7723592293110705685  # 0x94D049BB133111EB


def row_key(seed: int, problem_id: str, node: int, index: int) -> int:
    """The signed 64-bit key of one sample."""
    text = f"{seed}\x1f{problem_id}\x1f{node}\x1f{index}".encode()
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "little", signed=True)


def uniform(seed: int, problem_id: str, node: int, index: int) -> float:
    """A random number in (0, 1) for a strategy. It depends on the arguments alone."""
    key = row_key(seed, f"dice:{problem_id}", node, index)
    return ((key & (2**53 - 1)) + 0.5) * 2.0**-53


def _shift_right(x: Tensor, bits: int) -> Tensor:
    return (x >> bits) & ((1 << (64 - bits)) - 1)


def _mix(x: Tensor) -> Tensor:
    x = (x ^ _shift_right(x, 30)) * _MIX_1
    x = (x ^ _shift_right(x, 27)) * _MIX_2
    return x ^ _shift_right(x, 31)


def gumbel_noise(keys_R: Tensor, position: int, token_ids_RK: Tensor) -> Tensor:
    """Standard Gumbel noise, float64, shape (R, K), for the given token ids at one position."""
    counter_1 = torch.tensor([position + 1], device=keys_R.device)
    row_R1 = _mix(keys_R + counter_1 * _GOLDEN)[:, None]
    bits_RK = _shift_right(_mix(_mix(row_R1 + (token_ids_RK + 1) * _GOLDEN)), 11)
    uniform_RK = (bits_RK.double() + 0.5) * 2.0**-53
    return -torch.log(-torch.log(uniform_RK))
