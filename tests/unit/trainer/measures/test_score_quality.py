"""Reward model metrics by hand, and unbiased where success rates are shares of few rollouts."""

from __future__ import annotations

import math
import random

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from trainer.measures import score_quality as prm_metrics
from trainer.measures.score_quality import (
    ScoredPrefix,
    brier_skill,
    brier_skill_outcomes,
    calibration,
    calibration_errors,
    equal_mass_bins,
    folded_normal_mean,
    reliability,
    resamples,
    within_problem_auroc,
)
from trainer.measures.statistics import variance_of_mean


def prefixes(*rows: tuple[float, int, int], groups: str = "") -> list[ScoredPrefix]:
    """(score, correct, count), each in a group of its own unless `groups` has its letter."""
    return [
        ScoredPrefix(
            problem=str(i), group=groups[i] if groups else str(i), score=s, correct=k, count=n
        )
        for i, (s, k, n) in enumerate(rows)
    ]


def test_auroc_compares_within_problems_only() -> None:
    generator = random.Random(1)
    groups = []
    expected_wins, expected_pairs = 0.0, 0
    for _ in range(30):
        labels = [generator.random() < 0.5 for _ in range(12)]
        scores = [generator.choice([0.1, 0.4, 0.7]) + 0.2 * label for label in labels]
        groups.append([(s, float(y)) for s, y in zip(scores, labels, strict=True)])
        pairs = sum(labels) * (12 - sum(labels))
        expected_pairs += pairs
        if pairs:
            expected_wins += float(roc_auc_score(labels, scores)) * pairs
    names = [str(i) for i in range(30)]
    estimate, pairs = within_problem_auroc(groups, names, seed=0)
    assert estimate is not None and pairs == expected_pairs
    assert estimate.value == pytest.approx(expected_wins / expected_pairs)
    assert estimate.low < estimate.value < estimate.high
    # An offset per problem, which a global AUROC would punish, changes nothing.
    moved = [[(s + i, r) for s, r in group] for i, group in enumerate(groups)]
    again, _ = within_problem_auroc(moved, names, seed=0)
    assert again is not None and again.value == pytest.approx(estimate.value)
    assert within_problem_auroc([[(0.5, 1.0), (0.2, 1.0)]], ["a"], seed=0) == (None, 0)
    # The right prefix ties with one wrong one and beats the other.
    tied, pairs = within_problem_auroc([[(0.5, 1.0), (0.5, 0.0), (0.2, 0.0)]], ["a"], seed=0)
    assert tied is not None and (tied.value, pairs) == (0.75, 2)
    # Every problem twice in one cluster says no more than once.
    twice, _ = within_problem_auroc(groups * 2, names * 2, seed=0)
    assert twice is not None
    assert (twice.low, twice.high) == pytest.approx((estimate.low, estimate.high))


def test_a_resample_takes_whole_clusters() -> None:
    for indices, clusters in resamples(["a", "b", "a", "c"], seed=3):
        assert len(np.unique(clusters)) == 3
        for c in np.unique(clusters):
            assert sorted(indices[clusters == c]) in ([0, 2], [1], [3])


def test_brier_skill_by_hand() -> None:
    # Rates 0, 1/2, 1/2, 1 of 5 rollouts each: noise 0, 1/16, 1/16, 0, on average 1/32. Base rate
    # 1/2: mean square 1/8, less 3/4 of the noise: 13/128. Scores off by 1/4 each: 1/16 - 1/32.
    scores = np.array([0.25, 0.25, 0.75, 0.75])
    rates = np.array([0.0, 0.5, 0.5, 1.0])
    noise = np.array([0.0, 1 / 16, 1 / 16, 0.0])
    assert brier_skill(scores, rates, noise) == pytest.approx(1 - (1 / 32) / (13 / 128))
    # Single outcomes: 1/16 and rate x (1 - rate), 1/8 on average, against 1/2 x 1/2.
    assert brier_skill_outcomes(scores, rates) == pytest.approx(1 - (1 / 16 + 1 / 8) / (1 / 4))
    assert math.isnan(brier_skill(scores, np.full(4, 0.5), np.full(4, 1 / 16)))
    assert math.isnan(brier_skill_outcomes(scores, np.ones(4)))


def test_the_noise_of_few_rollouts_is_taken_off() -> None:
    """Brier skill against shares of 4 rollouts, on average, is that against the success rates."""
    generator = np.random.default_rng(5)
    success = generator.beta(1, 2, 400)
    scores = np.clip(success + generator.normal(0, 0.15, 400), 0, 1)
    truth = 1 - ((scores - success) ** 2).mean() / success.var()
    found, naive = [], []
    for _ in range(300):
        rates = generator.binomial(4, success) / 4
        found.append(brier_skill(scores, rates, rates * (1 - rates) / 3))
        naive.append(1 - ((scores - rates) ** 2).mean() / rates.var())
    error = np.std(found) / 300**0.5
    assert abs(np.mean(found) - truth) < 4 * error
    assert np.mean(naive) < truth - 20 * error


def test_bins_hold_equal_numbers_and_equal_scores_together() -> None:
    scores = np.array([0.9, 0.1, 0.2, 0.3, 0.4, 0.5])
    assert equal_mass_bins(scores, 3).tolist() == [2, 0, 0, 1, 1, 2]
    assert len(np.unique(equal_mass_bins(np.array([0.5] * 9 + [0.1]), 5))) == 2
    assert equal_mass_bins(scores, 1).tolist() == [0] * 6


def test_calibration_error_by_hand() -> None:
    # Bins {0.1, 0.3} with rates 0, 1/2 and {0.7, 0.9} with rates 1/2, 1/2: gaps of the means
    # 0.2 - 0.25 = -0.05 and 0.8 - 0.5 = 0.3; over both (0.05 + 0.3) / 2.
    scores = np.array([0.1, 0.3, 0.7, 0.9])
    rates = np.array([0.0, 0.5, 0.5, 0.5])
    alone = np.arange(4)
    raw, corrected = calibration_errors(scores, rates, alone, 2)
    assert raw == pytest.approx(0.175)
    # Gaps 0.1, -0.2: deviation of the mean 0.15; gaps 0.2, 0.4: 0.1.
    bias = [folded_normal_mean(0.05, 0.15) - 0.05, folded_normal_mean(0.3, 0.1) - 0.3]
    assert corrected == pytest.approx(0.175 - sum(bias) / 2)
    assert corrected < raw
    # E|X| of X ~ N(0, s) is s sqrt(2/pi); far from 0 nothing is folded.
    assert folded_normal_mean(0.0, 2.0) == pytest.approx(2 * math.sqrt(2 / math.pi))
    assert folded_normal_mean(5.0, 0.1) == pytest.approx(5.0)
    assert folded_normal_mean(0.3, 0.0) == 0.3
    # One cluster a bin says nothing of the noise, so nothing is taken off.
    assert calibration_errors(scores, rates, np.array([0, 0, 1, 1]), 2)[1] == pytest.approx(raw)
    rows = reliability(scores, rates, list("abcd"), 2)
    assert [(r.predicted, r.observed, r.count) for r in rows] == [
        (pytest.approx(0.2), pytest.approx(0.25), 2),
        (pytest.approx(0.8), pytest.approx(0.5), 2),
    ]
    assert all(0 <= r.low < r.observed < r.high <= 1 for r in rows)


def test_the_error_of_a_bin_is_clustered() -> None:
    generator = np.random.default_rng(2)
    scores, rates = generator.random(60), generator.random(60)
    clusters = generator.integers(0, 9, 60)
    raw, corrected = calibration_errors(scores, rates, clusters, 1)
    s = math.sqrt(variance_of_mean(scores - rates, list(map(str, clusters))))
    assert corrected == pytest.approx(2 * raw - float(folded_normal_mean(raw, s)))


def test_the_bias_of_the_calibration_error_is_taken_off() -> None:
    """For a calibrated model the raw error is far from 0, and the corrected one smaller by two
    fifths; where all scores are 0.15 too high both are right."""
    generator = np.random.default_rng(7)
    own, found, moved = np.arange(150), [], []
    for _ in range(300):
        success = generator.beta(2, 3, 150) * 0.85
        rates = generator.binomial(8, success) / 8
        found.append(calibration_errors(success, rates, own, 10))
        moved.append(calibration_errors(success + 0.15, rates, own, 10)[1])
    raw, corrected = np.mean(found, axis=0)
    assert raw > 0.025
    # |X| against 2 |X| - E|X + noise|, X of the noise's own size: 1 against 2 - sqrt(2)
    assert corrected / raw == pytest.approx(2 - math.sqrt(2), abs=0.06)
    assert np.mean(moved) == pytest.approx(0.15, abs=0.003)


def test_intervals_of_the_calibration_error_hold_the_truth(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prm_metrics, "RESAMPLES", 100)
    generator = np.random.default_rng(8)
    covered = [0, 0]
    for _ in range(25):
        success = generator.beta(2, 3, 150) * 0.85
        counts = generator.binomial(8, success)
        for moved, by in enumerate((0.0, 0.15)):
            rows = [(p + by, int(k), 8) for p, k in zip(success, counts, strict=True)]
            found = calibration(prefixes(*rows), seed=1).calibration_error
            covered[moved] += found.low <= by <= found.high
    assert min(covered) >= 22


def test_the_interval_is_turned_round_at_the_raw_error() -> None:
    """What a resample is corrected towards is the raw error of the sample it comes from."""
    rows = [(i / 20, (3 * i) % 5, 8) for i in range(1, 20)]
    scores = np.array([s for s, _, _ in rows])
    rates = np.array([k / n for _, k, n in rows])
    drawn = resamples([p.group for p in prefixes(*rows)], 4)
    found = calibration(prefixes(*rows), seed=4, bins=4)
    missed = [
        calibration_errors(scores[i], rates[i], clusters, 4)[1] - found.calibration_error_raw
        for i, clusters in drawn
    ]
    error = found.calibration_error
    assert 0 < error.low < error.value
    assert error.high == pytest.approx(error.value - np.quantile(missed, 0.025))
    assert error.low == pytest.approx(error.value - np.quantile(missed, 0.975))


def test_what_cannot_be_known_is_none() -> None:
    with pytest.raises(ValueError, match="a calibration needs at least one prefix"):
        calibration([], seed=0)
    single = calibration(prefixes((0.2, 0, 1), (0.8, 1, 1), (0.6, 0, 1)), seed=0)
    assert single.brier_skill is None  # one rollout does not say how uncertain its share is
    # (0.04 + 0.04 + 0.36) / 3 against 1/3 x 2/3
    assert single.brier_skill_outcomes is not None
    assert single.brier_skill_outcomes.value == pytest.approx(1 - (0.44 / 3) / (2 / 9))
    same = calibration(prefixes((0.2, 4, 4), (0.8, 4, 4)), seed=0)
    assert same.brier_skill is None and same.brier_skill_outcomes is None
    assert same.calibration_error_raw == pytest.approx(0.5)
