"""The engine on a real tiny model: its accounting equals what hooks count, and a sample does not
depend on the other requests of its batch."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch

from data.types import StopReason
from rewards.models.prm import process_reward_model
from search.base import ChoiceRequest, SampleRequest, ScoreRequest
from search.engines.transformers_engine import EngineConfig, TransformersEngine
from search.scorer import RewardScorer
from trainer.models.loading import build_policy

from ...conftest import TINY

PROMPTS = ["3 4 7 12 -> 24\n", "1 2 -> 3\n", "5 6 7 8 9 10 -> 11\n"]
LONG = " ".join(map(str, range(1, 38))) + " -> 5\n"  # padded to three times the others' length


def make_engine(tiny_policy: Any, **options: Any) -> TransformersEngine:
    model, tokenizer = tiny_policy
    return TransformersEngine(model, tokenizer, EngineConfig(**{"seed": 5} | options))


def request(engine: TransformersEngine, prompt: str, **fields: Any) -> SampleRequest:
    defaults = {"node": 0, "n": 3, "stop_at_step": False, "max_new_tokens": 20}
    return SampleRequest(prefix=engine.encode(prompt), **defaults | fields)


class Meter:
    """Counts the positions that really went through a model, from the input ids of every call."""

    def __init__(self, model: Any) -> None:
        self.positions = 0
        self.calls: list[int] = []  # tokens per row
        self.handle = model.register_forward_pre_hook(self._count, with_kwargs=True)

    def _count(self, module: Any, args: Any, kwargs: Any) -> None:
        self.positions += kwargs["input_ids"].numel()
        self.calls.append(kwargs["input_ids"].shape[1])

    def __enter__(self) -> Meter:
        return self

    def __exit__(self, *_: object) -> None:
        self.handle.remove()


def test_usage_and_padding_add_up_to_what_the_model_ran(tiny_policy: Any) -> None:
    engine = make_engine(tiny_policy)
    items = [(f"p{i}", request(engine, p, n=4 + i)) for i, p in enumerate(PROMPTS)]
    with Meter(tiny_policy[0]) as meter:
        results = engine.sample_batch(items)
    positions = sum(result.usage.positions for result in results)
    assert positions + engine.padding_positions == meter.positions
    for (_, asked), result in zip(items, results, strict=True):
        lengths = [len(sample.token_ids) for sample in result.samples]
        assert len(lengths) == asked.n
        # By hand: once the prefix without its last token; then per sample this last token and
        # every generated token but the last one.
        assert result.usage.positions == len(asked.prefix) - 1 + sum(lengths)
        assert result.usage.generated_tokens == sum(lengths)
        assert result.usage.cached_tokens == (len(asked.prefix) - 1) * (asked.n - 1)


def test_small_batches_have_no_padding_where_bit_identity_is_not_asked_for(
    tiny_policy: Any,
) -> None:
    padded, plain = (make_engine(tiny_policy, bit_identical=bit) for bit in (True, False))
    items = [("p", request(plain, PROMPTS[0], n=1))]
    [with_padding], [result] = padded.sample_batch(items), plain.sample_batch(items)
    assert plain.padding_positions == 0 < padded.padding_positions
    # The same noise and nearly the same logits: the same tokens.
    assert result.samples[0].token_ids == with_padding.samples[0].token_ids
    assert result.usage == with_padding.usage
    choice = [("p", ChoiceRequest(node=0, prefix=items[0][1].prefix, options=(5, 6)))]
    [first], [second] = padded.choice_batch(choice), plain.choice_batch(choice)
    assert plain.padding_positions == 0
    assert first.probabilities == pytest.approx(second.probabilities, abs=1e-6)


def test_single_samples_read_the_last_token_with_their_prefix(tiny_policy: Any) -> None:
    """One forward pass less, the same positions and the same tokens, whatever the number of rows
    and new tokens."""
    model, _ = tiny_policy
    padded = make_engine(tiny_policy)
    for mib in (0, 4):
        plain = make_engine(tiny_policy, bit_identical=False, kept_prefixes_mib=mib)
        for prompts in ([PROMPTS[0]], [PROMPTS[0]] * 2, PROMPTS):
            items = [
                (f"p{i}", request(plain, prompt, n=1, max_new_tokens=6))
                for i, prompt in enumerate(prompts)
            ]
            calls: list[int] = []
            handle = model.register_forward_pre_hook(
                lambda module, args, kwargs, calls=calls: calls.append(
                    kwargs["input_ids"].shape[1]
                ),
                with_kwargs=True,
            )
            results = plain.sample_batch(items)
            handle.remove()
            longest = max(result.usage.generated_tokens for result in results)
            if len(prompts) < 3 and not mib:
                assert calls == [len(items[0][1].prefix), *[1] * (longest - 1)]
            for ours, theirs in zip(results, padded.sample_batch(items), strict=True):
                assert ours.samples[0].token_ids == theirs.samples[0].token_ids
                assert ours.samples[0].logprob == pytest.approx(theirs.samples[0].logprob, abs=1e-5)
                assert ours.usage == theirs.usage


@pytest.mark.parametrize("outputs", [None, 1])
def test_flops_are_those_that_torch_counts(tiny_policy: Any, outputs: int | None) -> None:
    """A prefill runs the output head only at its last position."""
    from torch.utils.flop_counter import FlopCounterMode

    engine = make_engine(tiny_policy)
    prefix = list(engine.encode(PROMPTS[0]))
    ids = torch.tensor([prefix])
    model = tiny_policy[0]
    attention = model.config._attn_implementation
    model.set_attn_implementation("eager")  # eager attention uses plain matrix products
    with torch.inference_mode(), FlopCounterMode(display=False) as counter:
        model(input_ids=ids, logits_to_keep=outputs or 0)
    model.set_attn_implementation(attention)
    # torch counts the whole square of attention, the engine the causal half with the diagonal.
    n = len(prefix)
    flops = engine.flops
    ours = flops.forward(0, n, outputs)
    masked = 4 * flops.layers * flops.attention_width * n * (n - 1) / 2
    norms = 2 * n * (2 * flops.layers + 1) * model.config.hidden_size  # weights, not products
    rotary = counter.get_total_flops() - (ours + masked - norms)
    assert 0 <= rotary <= 0.002 * ours


@pytest.fixture(params=[1, 2])
def threads(request: pytest.FixtureRequest) -> Iterator[int]:
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


@pytest.mark.parametrize("company", [0, 5, 40, 90])
def test_a_sample_does_not_depend_on_who_shares_the_batch(
    tiny_policy: Any, company: int, threads: int
) -> None:
    engine = make_engine(tiny_policy)
    prompts = [*PROMPTS, LONG]
    others = [
        (f"other{i}", request(engine, prompts[i % 4], n=1 + i % 4, max_new_tokens=5 + i % 20))
        for i in range(company)
    ]
    for prompt in prompts:
        mine = ("mine", request(engine, prompt, n=3))
        alone = engine.sample_batch([mine])[0]
        together = engine.sample_batch([*others[: company // 2], mine, *others[company // 2 :]])
        assert together[company // 2] == alone  # log-probabilities to the last bit


@pytest.mark.parametrize("rows", [16, 17, 21, 31, 33, 63])
def test_the_last_of_an_odd_number_of_rows_is_like_any_other(threads: int, rows: int) -> None:
    torch.manual_seed(0)
    sizes = {"hidden_size": 128, "intermediate_size": 336, "num_attention_heads": 4}
    wide = {**TINY, **sizes, "num_key_value_heads": 4}
    engine = make_engine(build_policy(wide, "numbers", 30))
    whole = engine.sample_batch([("p", request(engine, PROMPTS[1], n=rows))])[0]
    last = request(engine, PROMPTS[1], n=1, first_index=rows - 1)
    assert engine.sample_batch([("p", last)])[0].samples == whole.samples[-1:]


def test_a_process_reward_does_not_depend_on_who_shares_the_batch(
    tiny_policy: Any, tmp_path: Any, threads: int
) -> None:
    from trainer.models.loading import reward_model_from_policy, save_model

    save_model(*tiny_policy, tmp_path)
    model = reward_model_from_policy(str(tmp_path))
    scorer = RewardScorer(process_reward_model(model, tiny_policy[1].pad_token_id))
    engine = make_engine(tiny_policy)
    sequences = [engine.encode([*PROMPTS, LONG][i % 4] + "1 2 -> 3\n" * (i % 3)) for i in range(90)]
    items = [
        ("p", ScoreRequest(node=i, sequence=ids, step_ends=(3, len(ids) - 1)))
        for i, ids in enumerate(sequences)
    ]
    together = scorer.score_batch(items)
    assert [scorer.score_batch([item])[0] for item in items] == together


def test_samples_of_a_request_can_be_asked_for_in_parts(tiny_policy: Any) -> None:
    engine = make_engine(tiny_policy)
    whole = engine.sample_batch([("p", request(engine, PROMPTS[0], n=5))])[0]
    parts = engine.sample_batch(
        [
            ("p", request(engine, PROMPTS[0], n=2)),
            ("p", request(engine, PROMPTS[0], n=3, first_index=2)),
        ]
    )
    assert parts[0].samples + parts[1].samples == whole.samples
    other_seed = make_engine(tiny_policy, seed=6).sample_batch(
        [("p", request(engine, PROMPTS[0], n=5))]
    )[0]
    assert other_seed.samples != whole.samples
    small = make_engine(tiny_policy, max_rows=16)
    many = [(f"q{i}", request(engine, PROMPTS[i % 3], n=5)) for i in range(9)]
    assert small.sample_batch(many) == engine.sample_batch(many)


def test_greedy_and_log_probabilities_are_those_of_a_plain_forward(tiny_policy: Any) -> None:
    engine = make_engine(tiny_policy)
    for temperature in (0.0, 1.0):
        asked = request(engine, PROMPTS[2], n=1, temperature=temperature, max_new_tokens=12)
        sample = engine.sample_batch([("p", asked)])[0].samples[0]
        ids = torch.tensor([[*asked.prefix, *sample.token_ids]])
        with torch.inference_mode():
            logits_TV = tiny_policy[0](input_ids=ids).logits[0].float()
        logprobs_TV = torch.log_softmax(logits_TV, dim=-1)[len(asked.prefix) - 1 : -1]
        generated = torch.tensor(sample.token_ids)
        expected = logprobs_TV.gather(1, generated[:, None]).sum()
        assert sample.logprob == pytest.approx(float(expected), abs=1e-4)
        by_token = logprobs_TV.gather(1, generated[:, None])[:, 0].tolist()
        start = 0
        ends = engine.step_ends(sample.token_ids)
        for end, logprob in zip(ends, sample.step_logprobs, strict=True):
            assert logprob == pytest.approx(sum(by_token[start : end + 1]), abs=1e-4)
            start = end + 1
        if temperature == 0:
            assert torch.equal(logprobs_TV.argmax(-1), generated)


def test_sampling_follows_the_softmax(tiny_policy: Any) -> None:
    engine = make_engine(tiny_policy)
    asked = request(engine, PROMPTS[0], n=4000, max_new_tokens=1)
    samples = engine.sample_batch([("p", asked)])[0].samples
    with torch.inference_mode():
        logits_V = tiny_policy[0](input_ids=torch.tensor([asked.prefix])).logits[0, -1].double()
    expected_V = torch.softmax(logits_V, dim=-1) * len(samples)
    observed_V = torch.bincount(
        torch.tensor([s.token_ids[0] for s in samples]), minlength=len(expected_V)
    )
    common = expected_V >= 5
    assert common.sum() >= 5
    chi_square = ((observed_V - expected_V) ** 2 / expected_V)[common].sum()
    degrees = int(common.sum())
    assert chi_square < degrees + 4 * (2 * degrees) ** 0.5


def test_stops(tiny_policy: Any) -> None:
    engine = make_engine(tiny_policy)
    asked = request(engine, PROMPTS[0], n=200, stop_at_step=True, max_new_tokens=30)
    samples = engine.sample_batch([("p", asked)])[0].samples
    ends = {"step": 0, "end": 0, "length": 0}
    for sample in samples:
        *before, last = sample.token_ids
        assert engine.end_token_id not in before and "\n" not in engine.decode(before)
        if sample.stop_reason is StopReason.STEP_END:
            ends["step"] += 1
            assert "\n" in engine.decode([last])
        elif sample.stop_reason is StopReason.END_OF_SOLUTION:
            ends["end"] += 1
            assert last == engine.end_token_id
        else:
            ends["length"] += 1
            assert len(sample.token_ids) == 30
    assert all(ends.values()), ends


def test_bad_requests_are_named(tiny_policy: Any) -> None:
    engine = make_engine(tiny_policy)
    with pytest.raises(ValueError, match=r"problem p: .* \(has 1\)"):
        engine.sample_batch([("p", SampleRequest(
            node=0, prefix=(3,), n=1, stop_at_step=False, max_new_tokens=1
        ))])  # fmt: skip
    with pytest.raises(ValueError, match="max_rows is 8"):
        EngineConfig(seed=0, max_rows=8)


def test_process_rewards_by_hand_and_their_usage(tiny_policy: Any, tmp_path: Any) -> None:
    from trainer.models.loading import reward_model_from_policy, save_model

    save_model(*tiny_policy, tmp_path)
    torch.manual_seed(0)
    model = reward_model_from_policy(str(tmp_path)).eval()
    scorer = RewardScorer(process_reward_model(model, tiny_policy[1].pad_token_id))
    engine = make_engine(tiny_policy)
    sequences = [engine.encode(prompt * (1 + i)) for i, prompt in enumerate(PROMPTS)]
    items = [
        ("p", ScoreRequest(node=i, sequence=ids, step_ends=(2, len(ids) - 1)))
        for i, ids in enumerate(sequences)
    ]
    with Meter(model) as meter:
        results = scorer.score_batch(items)
    positions = sum(result.usage.positions for result in results)
    assert positions == sum(map(len, sequences))
    assert positions + scorer.reward_model.padding_positions == meter.positions
    for ids, result in zip(sequences, results, strict=True):
        with torch.inference_mode():
            logits_TC = model(input_ids=torch.tensor([ids])).logits[0]
        for end, score in zip((2, len(ids) - 1), result.scores, strict=True):
            wrong, right = logits_TC[end].tolist()
            assert score == pytest.approx(1 / (1 + 2.718281828459045 ** (wrong - right)), abs=1e-5)
    assert scorer.score_batch(items[1:2])[0].scores == results[1].scores  # company-free
    with pytest.raises(ValueError, match="step_ends is"):
        scorer.score_batch([("p", ScoreRequest(node=0, sequence=(1, 2), step_ends=(2,)))])


def test_draws_are_given_for_each_token_and_only_where_they_are_asked_for(tiny_policy: Any) -> None:
    engine = make_engine(tiny_policy)
    plain = request(engine, PROMPTS[0], temperature=0.7)
    asked = replace(plain, with_draws=True)
    [without], [with_draws] = (engine.sample_batch([("p", each)]) for each in (plain, asked))
    for bare, sample in zip(without.samples, with_draws.samples, strict=True):
        assert bare.draws is None and sample.draws is not None
        assert replace(sample, draws=None) == bare
        assert math.fsum(sample.draws.logprobs) == pytest.approx(sample.logprob, abs=1e-4)
        assert math.fsum(sample.draws.entropies) == pytest.approx(math.fsum(sample.step_entropies))
        ids = asked.prefix + sample.token_ids
        logits = tiny_policy[0](input_ids=torch.tensor([ids])).logits[0, len(asked.prefix) - 1 : -1]
        expected = (logits / 0.7).log_softmax(-1).gather(1, torch.tensor(sample.token_ids)[:, None])
        assert sample.draws.draw_logprobs == pytest.approx(expected[:, 0].tolist(), abs=1e-4)


def test_an_excluded_token_is_not_the_first_one_and_the_company_changes_nothing(
    tiny_policy: Any,
) -> None:
    engine = make_engine(tiny_policy)
    free = request(engine, PROMPTS[0], n=64)
    [result] = engine.sample_batch([("p", free)])
    excluded = tuple(sorted({sample.token_ids[0] for sample in result.samples}))[:3]
    asked = replace(free, excluded=excluded, with_draws=True)
    [alone] = engine.sample_batch([("p", asked)])
    assert not {sample.token_ids[0] for sample in alone.samples} & set(excluded)
    assert engine.sample_batch([("q", free), ("p", asked)])[1] == alone
    # A sample that would not have begun with an excluded token is the same as without exclusion.
    pairs = zip(result.samples, alone.samples, strict=True)
    kept = [pair for pair in pairs if pair[0].token_ids[0] not in excluded]
    assert kept and all(a.token_ids == b.token_ids for a, b in kept)
