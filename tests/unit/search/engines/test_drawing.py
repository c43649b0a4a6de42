"""Draws of tokens against the distribution that they are said to come from."""

from __future__ import annotations

import pytest
import torch

from search.engines.drawing import TOP_K, draw
from search.noise import gumbel_noise, row_key

VOCABULARY, SAMPLES = 4000, 6000


def zipf_logits(power: float) -> torch.Tensor:
    """Logits of a Zipf distribution over the vocabulary, in a random order."""
    ranks = torch.arange(1, VOCABULARY + 1).float()
    order = torch.randperm(VOCABULARY, generator=torch.Generator().manual_seed(0))
    return (-power * ranks.log())[order]


def sample(logits: torch.Tensor, temperature: float) -> torch.Tensor:
    keys = torch.tensor([row_key(1, "p", 0, i) for i in range(SAMPLES)])
    tokens = [
        draw(logits.expand(len(part), -1), part, torch.full((len(part),), temperature), 0)[0]
        for part in keys.split(3000)
    ]
    return torch.cat(tokens)


@pytest.mark.parametrize(("power", "temperature"), [(1.0, 1.0), (1.5, 1.4)])
def test_samples_of_a_large_vocabulary_measure_the_kl_that_ppo_reads(
    power: float, temperature: float
) -> None:
    """PPO averages log policy - log reference over its samples, with the log-probabilities of the
    whole vocabulary. With draws from the 256 largest logits alone, whose mass is 0.69 for Zipf's
    law, this average is off by a factor of 2."""
    logits = zipf_logits(power) / temperature
    logprobs = logits.log_softmax(-1)
    top = logits.topk(TOP_K).indices
    other = logits + 1.0
    other[top] -= 1.0  # a reference that gives the tail more
    difference = logprobs - other.log_softmax(-1)
    probabilities = logprobs.exp()
    kl = (probabilities * difference).sum()
    variance = (probabilities * (difference - kl) ** 2).sum()

    tokens = sample(zipf_logits(power), temperature)

    assert abs(difference[tokens].mean() - kl) < 4 * (variance / SAMPLES).sqrt()
    # Within the tail too: the share of each of its two halves, by id.
    tail = torch.ones(VOCABULARY, dtype=torch.bool).scatter(0, top, False)
    for half in (slice(0, VOCABULARY // 2), slice(VOCABULARY // 2, VOCABULARY)):
        part = torch.zeros(VOCABULARY, dtype=torch.bool)
        part[half] = tail[half]
        share = probabilities[part].sum()
        assert abs(part[tokens].float().mean() - share) < 4 * (share / SAMPLES).sqrt()


def test_a_small_vocabulary_is_drawn_with_one_noise_per_token() -> None:
    logits = torch.randn(7, TOP_K, generator=torch.Generator().manual_seed(1))
    keys = torch.arange(7)
    tokens, logprobs, entropies = draw(logits, keys, torch.ones(7), 3)
    noise = gumbel_noise(keys, 3, torch.arange(TOP_K).expand(7, -1))
    assert tokens.tolist() == (logits.double() + noise).argmax(-1).tolist()
    expected = logits.log_softmax(-1)
    assert torch.equal(logprobs, expected.gather(1, tokens[:, None]).squeeze(1))
    assert torch.allclose(entropies, -(expected.exp() * expected).sum(-1))


def test_temperature_0_takes_the_largest_logit_of_a_flat_distribution() -> None:
    logits = torch.zeros(50, VOCABULARY)
    logits[torch.arange(50), torch.arange(50) * 7] = 1e-3  # the tail together weighs far more
    tokens, _, _ = draw(logits, torch.arange(50), torch.zeros(50), 0)
    assert tokens.tolist() == [7 * i for i in range(50)]


def test_a_draw_does_not_depend_on_the_other_rows() -> None:
    logits = zipf_logits(1.0).expand(64, -1)
    keys = torch.tensor([row_key(2, "p", 0, i) for i in range(64)])
    together = draw(logits, keys, torch.ones(64), 5)[0]
    alone = torch.cat([draw(logits[:1], keys[i : i + 1], torch.ones(1), 5)[0] for i in range(64)])
    assert together.tolist() == alone.tolist()
