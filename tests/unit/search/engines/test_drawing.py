"""Draws of tokens against the distribution that they are said to come from."""

from __future__ import annotations

import pytest
import torch

from search.engines.drawing import TOP_K, draw, draw_logprobs, excluded_tokens
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


@pytest.mark.parametrize("vocabulary", [4, 300])
def test_excluded_tokens_are_not_drawn_and_the_others_keep_their_proportions(
    vocabulary: int,
) -> None:
    """Probabilities 0.4, 0.3, 0.2, 0.1 at temperature 0.5 are 16 : 9 : 4 : 1. Without the first two
    tokens, the others have 4/5 and 1/5. The larger vocabulary has tokens beyond the top 256."""
    logits = torch.full((vocabulary,), -60.0)
    logits[:4] = torch.tensor([0.4, 0.3, 0.2, 0.1]).log()
    logits_RV = logits.expand(4000, -1)
    keys = torch.tensor([row_key(1, "p", 0, i) for i in range(4000)])
    temperature = torch.full((4000,), 0.5)
    excluded = excluded_tokens([(0, 1)] * 4000, logits_RV)
    tokens, logprobs, _ = draw(logits_RV, keys, temperature, 0, excluded)
    assert set(tokens.tolist()) == {2, 3}
    assert (tokens == 2).float().mean().item() == pytest.approx(0.8, abs=0.02)
    drawn = draw_logprobs(logits_RV, tokens, temperature, excluded).exp()
    expected = torch.where(tokens == 2, 0.8, 0.2).double()
    torch.testing.assert_close(drawn, expected, rtol=1e-6, atol=0)
    true = torch.where(tokens == 2, 0.2, 0.1)  # at temperature 1, among all tokens
    torch.testing.assert_close(logprobs.exp(), true, rtol=1e-5, atol=0)
    # The last token that is left is drawn with probability 1, exactly.
    last = excluded_tokens([tuple(t for t in range(vocabulary) if t != 3)], logits[None])
    [token] = draw(logits[None], keys[:1], temperature[:1], 0, last)[0].tolist()
    assert token == 3
    assert draw_logprobs(logits[None], torch.tensor([3]), temperature[:1], last).item() == 0.0
    assert draw_logprobs(logits[None], torch.tensor([0]), torch.zeros(1)).item() == 0.0
    with pytest.raises(ValueError, match=f"excludes all {vocabulary} tokens"):
        excluded_tokens([tuple(range(vocabulary))], logits[None])
