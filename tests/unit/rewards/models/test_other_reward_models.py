"""Generative, implicit and ensemble reward models against what plain transformers models say."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    Gemma2Config,
    Gemma2ForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
)

from data.types import ModelUsage, SteppedSolution
from rewards.models.causal_lm import NextTokens
from rewards.models.ensemble import EnsembleRewardModel, TextEnsembleRewardModel, pessimistic
from rewards.models.opening import open_reward_model
from rewards.models.position_reader import padded_rows
from rewards.models.questions import QUESTION, filled_question
from trainer.models.loading import reward_model_from_policy, save_model


def described(path: Path, **fields: Any) -> str:
    path.write_text(json.dumps(fields))
    return str(path)


def next_token_logprobs(folder: Path, ids: list[int]) -> torch.Tensor:
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    with torch.inference_mode():
        return model(input_ids=torch.tensor([ids])).logits[0].log_softmax(-1)


@pytest.mark.parametrize("chat", [True, False])
def test_a_generative_model_is_asked_after_every_step(
    published: dict[str, Path], solution: SteppedSolution, tmp_path: Path, chat: bool
) -> None:
    folder = published["rlhflow" if chat else "math_shepherd"]
    tokenizer = AutoTokenizer.from_pretrained(folder)
    template = "About {problem}\n{steps}\nGood?"
    words = {"yes": "yes", "no": "no"} if chat else {"yes": "+", "no": "-"}
    fields = {"convention": "generative", "model": str(folder), "question": template}
    path = described(tmp_path / "g.yaml", **fields, **words)
    model: Any = open_reward_model(path, "cpu").text_model
    [scores], [usage] = model.score_solutions([solution])
    tokens, expected = 0, []
    for said in (
        "Add 3 and 4. 3 + 4 = 7",
        "Add 3 and 4. 3 + 4 = 7\n7 * 2 = 14",
        "Add 3 and 4. 3 + 4 = 7\n7 * 2 = 14\nThe answer is 14.",
    ):
        question = f"About What is 3 + 4, doubled?\n{said}\nGood?"
        if chat:
            text = (
                "<|begin_of_text|><|start_header_id|>user<|end_header_id|>\n\n"
                f"{question}<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n"
            )
            ids = tokenizer.encode(text)
            yes, no = (tokenizer.encode(word)[0] for word in ("yes", "no"))
        else:
            ids = tokenizer.encode(f"{question}\nAnswer:")
            assert ids[0] == tokenizer.bos_token_id
            yes, no = tokenizer.convert_tokens_to_ids(["▁+", "▁-"])
        logprobs = next_token_logprobs(folder, ids)[-1]
        chances = logprobs[yes].exp(), logprobs[no].exp()
        expected.append(float(chances[0] / (chances[0] + chances[1])))
        tokens += len(ids)
    assert scores == pytest.approx(expected, abs=1e-5)
    assert (usage.positions, usage.sequences) == (tokens, 3)
    many = [SteppedSolution(prompt="p", steps=("a\n",) * n) for n in range(1, 20)]
    together, _ = model.score_solutions([*many, solution])
    assert together[-1] == scores


def test_questions_hold_their_fields_and_no_others() -> None:
    tricky = SteppedSolution(prompt="{steps}", steps=("{problem}\n", "x"))
    assert filled_question("{problem}|{steps}", tricky, 1) == "{steps}|{problem}\nx"
    assert "{problem}" in QUESTION and "{steps}" in QUESTION


def test_generative_answers_must_differ(published: dict[str, Path], tmp_path: Path) -> None:
    fields = {"convention": "generative", "model": str(published["rlhflow"])}
    path = described(tmp_path / "g.yaml", **fields, yes="a b", no="a c")
    with pytest.raises(ValueError, match="their first tokens must differ"):
        open_reward_model(path, "cpu")
    path = described(tmp_path / "g.yaml", **fields, question="Right?")
    with pytest.raises(ValueError, match=r"it must hold {problem}"):
        open_reward_model(path, "cpu")


def test_the_implicit_reward_is_a_log_ratio(
    published: dict[str, Path], solution: SteppedSolution, tmp_path: Path
) -> None:
    folders = published["rlhflow"], published["reference"]
    path = described(
        tmp_path / "i.yaml",
        convention="implicit", model=str(folders[0]), reference=str(folders[1]), beta=0.02,
    )  # fmt: skip
    model: Any = open_reward_model(path, "cpu").text_model
    [scores], [usage] = model.score_solutions([solution])
    tokenizer = AutoTokenizer.from_pretrained(folders[0])
    prompt = (
        "<|begin_of_text|><|start_header_id|>user<|end_header_id|>\n\nWhat is 3 + 4, doubled?"
        "<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n"
    )
    first = len(tokenizer.encode(prompt))
    ids = tokenizer.encode(prompt + "".join(solution.steps))
    ours, theirs = (next_token_logprobs(folder, ids) for folder in folders)
    total, expected, text = 0.0, [], prompt
    at = first
    for step in solution.steps:
        text += step
        end = len(tokenizer.encode(text))
        while at < end:
            total += float(ours[at - 1, ids[at]] - theirs[at - 1, ids[at]])
            at += 1
        expected.append(1 / (1 + math.exp(-0.02 * total)))
    assert at == len(ids)
    assert scores == pytest.approx(expected, abs=1e-5)
    assert len({round(score, 3) for score in scores}) == 3
    assert usage.positions == 2 * len(ids)
    heads = 2 * 2 * 32 * len(tokenizer) * (len(ids) - first)
    layers = 2 * (4 * 32 * 32 + 3 * 32 * 64) + 5 * 32
    attention = 4 * 2 * 32 * len(ids) * (len(ids) + 1) / 2
    assert usage.flops == 2 * (2 * len(ids) * layers + attention) + heads
    many = [SteppedSolution(prompt="What", steps=("1 + 1\n",) * n) for n in range(1, 20)]
    together, _ = model.score_solutions([*many, solution])
    assert together[-1] == scores


def test_a_log_probability_does_not_depend_on_how_many_are_read() -> None:
    """The output head is a matrix product over the positions read, and rounds by how many."""
    sizes = {"hidden_size": 512, "intermediate_size": 32, "num_hidden_layers": 1}
    torch.manual_seed(4)
    config = LlamaConfig(vocab_size=2000, num_attention_heads=8, **sizes)
    next_tokens = NextTokens(LlamaForCausalLM(config))
    rows = [[11, 12, 13], *([i, 2 * i, 3 * i] for i in range(1, 40))]

    def logprobs(batch: list[list[int]]) -> list[float]:
        """Of many tokens after the first row."""
        ids_RL, mask_RL = padded_rows(batch, 0)
        with torch.inference_mode():
            hidden_NH = next_tokens.hidden(ids_RL, mask_RL, [[1]] * len(batch))
            tokens = range(0, 2000, 20)
            return [float(next_tokens.logprobs(hidden_NH, [t] * len(hidden_NH))[0]) for t in tokens]

    assert logprobs(rows[:1]) == logprobs(rows[:2]) == logprobs(rows[:17]) == logprobs(rows)


def test_logits_that_are_capped_are_refused() -> None:
    sizes = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1, "head_dim": 16}
    heads = {"num_attention_heads": 2, "num_key_value_heads": 2}
    config = Gemma2Config(vocab_size=50, final_logit_softcapping=0.05, **sizes, **heads)
    with pytest.raises(ValueError, match="Gemma2ForCausalLM does more to its logits"):
        NextTokens(Gemma2ForCausalLM(config))


def test_a_model_against_itself_says_one_half(
    published: dict[str, Path], solution: SteppedSolution, tmp_path: Path
) -> None:
    folder = str(published["math_shepherd"])
    fields = {"convention": "implicit", "model": folder, "reference": folder}
    model: Any = open_reward_model(described(tmp_path / "i.yaml", **fields, beta=1.0), "cpu")
    assert model.text_model.score_solutions([solution])[0] == [[0.5, 0.5, 0.5]]
    with pytest.raises(ValueError, match=r"beta is 0.0; it must be positive"):
        open_reward_model(described(tmp_path / "i.yaml", **fields, beta=0.0), "cpu")
    fields["reference"] = str(published["reference"])
    with pytest.raises(ValueError, match="they must share one tokenizer"):
        open_reward_model(described(tmp_path / "i.yaml", **fields, beta=1.0), "cpu")


def test_pessimism_by_hand() -> None:
    # mean 0.6, deviations 0.2, -0.2, 0: variance 0.08 / 3.
    assert pessimistic([0.8, 0.4, 0.6], 1.0) == pytest.approx(0.6 - math.sqrt(0.08 / 3))
    assert pessimistic([0.8, 0.4, 0.6], 0.0) == pytest.approx(0.6)
    assert pessimistic([0.9, 0.1], 2.0) == 0.0  # 0.5 - 0.8
    assert pessimistic([0.7], 5.0) == 0.7
    assert math.isnan(pessimistic([0.7, math.nan], 1.0))


class Constant:
    """Both protocols, with one score and one position a step."""

    def __init__(self, score: float) -> None:
        self.value = score

    def prefix_flops(self, length: int) -> float:
        return 0.0

    def score(self, sequences: Any, step_ends: Any) -> Any:
        return [[self.value] * len(ends) for ends in step_ends], [
            ModelUsage(positions=len(sequence)) for sequence in sequences
        ]

    def score_solutions(self, solutions: Any) -> Any:
        return self.score([s.steps for s in solutions], [s.steps for s in solutions])


def test_ensembles_of_both_protocols_add_up_what_they_spend() -> None:
    members = [Constant(0.8), Constant(0.4)]
    scores, usage = EnsembleRewardModel(members, 1.0).score([[1, 2, 3], [4]], [[1, 2], [0]])
    assert [[round(s, 9) for s in row] for row in scores] == [[0.4, 0.4], [0.4]]
    assert [spent.positions for spent in usage] == [6, 2]
    asked = [SteppedSolution(prompt="p", steps=("a", "b"))]
    scores, usage = TextEnsembleRewardModel(members, 0.5).score_solutions(asked)
    assert scores == [[pytest.approx(0.5), pytest.approx(0.5)]]
    assert usage == [ModelUsage(positions=4)]
    with pytest.raises(ValueError, match="members is empty"):
        EnsembleRewardModel([], 1.0)
    with pytest.raises(ValueError, match=r"deviations is -1.0"):
        TextEnsembleRewardModel(members, -1.0)


def test_ensembles_are_described_by_their_members(
    published: dict[str, Path], solution: SteppedSolution, tmp_path: Path, tiny_policy: Any
) -> None:
    names = [str(published["trl"]), str(published["qwen_math_prm"])]
    path = described(tmp_path / "e.yaml", convention="ensemble", members=names, deviations=0.5)
    both: Any = open_reward_model(path, "cpu").text_model
    rows = [open_reward_model(n, "cpu").text_model.score_solutions([solution])[0][0] for n in names]
    [scores], _ = both.score_solutions([solution])
    # Of two, the standard deviation is half of the difference.
    expected = [(a + b) / 2 - 0.5 * abs(a - b) / 2 for a, b in zip(*rows, strict=True)]
    assert scores == pytest.approx(expected)
    save_model(*tiny_policy, tmp_path / "policy")
    ours = reward_model_from_policy(str(tmp_path / "policy"))
    save_model(ours, tiny_policy[1], tmp_path / "ours")
    names = [str(tmp_path / "ours"), names[0]]
    path = described(tmp_path / "e.yaml", convention="ensemble", members=names)
    with pytest.raises(ValueError, match=r"all read text.*'thinktree'.*'trl'"):
        open_reward_model(path, "cpu")
    names[1] = names[0]
    loaded = open_reward_model(described(Path(path), convention="ensemble", members=names), "cpu")
    assert loaded.vocab_size == len(tiny_policy[1])
    assert loaded.token_model is not None and loaded.max_context == 256
