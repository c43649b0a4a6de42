"""Published process reward models, tiny and random, against scores worked out from plain
transformers models and the published way of asking."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
    AutoTokenizer,
    MistralConfig,
    MistralForSequenceClassification,
    Qwen2Model,
)

from data.types import SteppedSolution
from rewards.base import SolutionTooLong
from rewards.models.opening import open_reward_model

QWEN_CHAT = (
    "<|im_start|>system\nPlease reason step by step, and put your final answer within \\boxed{}."
    "<|im_end|>\n<|im_start|>user\nWhat is 3 + 4, doubled?<|im_end|>\n<|im_start|>assistant\n"
    "Add 3 and 4. 3 + 4 = 7<extra_0>7 * 2 = 14<extra_0>The answer is 14.<extra_0><|im_end|>\n"
)
LLAMA_TURN = "<|start_header_id|>{}<|end_header_id|>\n\n{}<|eot_id|>"


def described(folder: Path, tmp_path: Path, convention: str, **more: Any) -> str:
    path = tmp_path / f"{convention}.yaml"
    path.write_text(json.dumps({"convention": convention, "model": str(folder)} | more))
    return str(path)


def hidden_states(folder: Path, ids: list[int]) -> torch.Tensor:
    """Of the Qwen2 backbone alone."""
    backbone = Qwen2Model.from_pretrained(folder, dtype=torch.float32).eval()
    with torch.inference_mode():
        return backbone(input_ids=torch.tensor([ids])).last_hidden_state[0]


def positions(ids: list[int], token: int) -> list[int]:
    return [i for i, id in enumerate(ids) if id == token]


def of_qwen_math_prm(folder: Path) -> tuple[list[float], int]:
    tokenizer = AutoTokenizer.from_pretrained(folder)
    ids = tokenizer.encode(QWEN_CHAT)
    head = load_file(folder / "model.safetensors")
    inner = hidden_states(folder, ids) @ head["score.0.weight"].T + head["score.0.bias"]
    logits = inner.clamp(min=0) @ head["score.2.weight"].T + head["score.2.bias"]
    tags = positions(ids, tokenizer.convert_tokens_to_ids("<extra_0>"))
    return logits.softmax(-1)[tags, 1].tolist(), len(ids)


def of_skywork(folder: Path) -> tuple[list[float], int]:
    tokenizer = AutoTokenizer.from_pretrained(folder)
    [line_end] = tokenizer.encode("\n")
    ids = tokenizer.encode("<|endoftext|>What is 3 + 4, doubled?\n")
    ends = []
    for step in ("Add 3 and 4. 3 + 4 = 7", "7 * 2 = 14", "The answer is 14."):
        ids += [*tokenizer.encode(step), line_end]
        ends.append(len(ids) - 1)
    head = load_file(folder / "model.safetensors")
    values = hidden_states(folder, ids) @ head["v_head.summary.weight"].T
    values = values + head["v_head.summary.bias"]
    return values[ends, 0].sigmoid().tolist(), len(ids)


def of_math_shepherd(folder: Path) -> tuple[list[float], int]:
    tokenizer = AutoTokenizer.from_pretrained(folder)
    ids = tokenizer.encode(
        "What is 3 + 4, doubled? Step 1: Add 3 and 4. 3 + 4 = 7 ки\nStep 2: 7 * 2 = 14 ки\n"
        "Step 3: The answer is 14. ки"
    )
    assert ids[0] == tokenizer.bos_token_id
    tag = tokenizer.convert_tokens_to_ids("▁ки")
    good, bad = tokenizer.convert_tokens_to_ids(["▁+", "▁-"])
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    with torch.inference_mode():
        logits = model(input_ids=torch.tensor([ids])).logits[0, :, [good, bad]]
    return logits.softmax(-1)[positions(ids, tag), 0].tolist(), len(ids)


def of_rlhflow(folder: Path) -> tuple[list[float], int]:
    """One conversation a step, each read before its last answer: the published way."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    good, bad = tokenizer.convert_tokens_to_ids(["+", "-"])
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    text, scores, ids = "<|begin_of_text|>", [], []
    first = "What is 3 + 4, doubled? Add 3 and 4. 3 + 4 = 7"
    for turn in (first, "7 * 2 = 14", "The answer is 14."):
        text += LLAMA_TURN.format("user", turn) + LLAMA_TURN.format("assistant", "+")
        ids = tokenizer.encode(text)
        assert ids[-2] == good
        with torch.inference_mode():
            logits = model(input_ids=torch.tensor([ids])).logits[0, -3, [good, bad]]
        scores.append(float(logits.softmax(-1)[0]))
    return scores, len(ids)


def of_trl(folder: Path) -> tuple[list[float], int]:
    """As TRL's trainer put its labels: at the last token of the separator after each step."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    ids = [tokenizer.bos_token_id, *tokenizer.encode("What is 3 + 4, doubled?\n")]
    ends = []
    for step in ("Add 3 and 4. 3 + 4 = 7", "7 * 2 = 14", "The answer is 14."):
        ids += tokenizer.encode(step) + tokenizer.encode("\n")
        ends.append(len(ids) - 1)
    model = AutoModelForTokenClassification.from_pretrained(folder, dtype=torch.float32).eval()
    with torch.inference_mode():
        logits = model(input_ids=torch.tensor([ids])).logits[0]
    return logits.softmax(-1)[ends, 1].tolist(), len(ids)


BY_HAND = {
    "qwen_math_prm": of_qwen_math_prm,
    "skywork": of_skywork,
    "math_shepherd": of_math_shepherd,
    "rlhflow": of_rlhflow,
    "trl": of_trl,
}
SELF_DESCRIBED = ("qwen_math_prm", "skywork", "trl", "outcome")


def opened(published: dict[str, Path], tmp_path: Path, convention: str) -> Any:
    folder = published[convention]
    by_folder = convention in SELF_DESCRIBED
    name = str(folder) if by_folder else described(folder, tmp_path, convention)
    loaded = open_reward_model(name, "cpu")
    assert loaded.convention == convention
    return loaded.text_model


@pytest.mark.parametrize("convention", BY_HAND)
def test_scores_are_those_worked_out_by_hand(
    published: dict[str, Path], solution: SteppedSolution, tmp_path: Path, convention: str
) -> None:
    expected, tokens = BY_HAND[convention](published[convention])
    model = opened(published, tmp_path, convention)
    scores, usage = model.score_solutions([solution])
    assert scores[0] == pytest.approx(expected, abs=2e-5)
    assert len({round(score, 3) for score in expected}) == 3  # nothing is read in one place
    assert (usage[0].positions, usage[0].prompt_tokens, usage[0].sequences) == (tokens, tokens, 1)
    assert usage[0].generated_tokens == 0
    # 2 FLOPs a parameter that multiplies, and the two products of attention: 2 layers of width 32.
    attention = 4 * 2 * 32 * tokens * (tokens + 1) / 2
    layers = 2 * (4 * 32 * 32 + 3 * 32 * 64)
    head = {"qwen_math_prm": 32 * 33 + 2 * 33, "skywork": 33, "trl": 2 * 33}.get(convention, 0)
    norms = 5 * 32 + (2 * 3 * 32 if convention in ("qwen_math_prm", "skywork", "trl") else 0)
    reads = 0 if head else 3 * 2 * 2 * 32
    assert usage[0].flops == 2 * tokens * (layers + norms + head) + attention + reads


@pytest.mark.parametrize("convention", [*BY_HAND, "outcome"])
def test_a_score_does_not_depend_on_its_neighbours(
    published: dict[str, Path], solution: SteppedSolution, tmp_path: Path, convention: str
) -> None:
    model = opened(published, tmp_path, convention)
    many = [
        SteppedSolution(
            prompt=solution.prompt, steps=(*(f"{i} + {j} = 7\n" for j in range(n)), "7")
        )
        for i, n in enumerate([0, 1, 5, 2, 5, 9, 1, 0, 3, 5, 5, 5, 7, 5, 5, 5, 5, 5, 5, 1])
    ]
    together, usage = model.score_solutions([*many, solution])
    apart = [model.score_solutions([one]) for one in [*many, solution]]
    assert together == [scores[0] for scores, _ in apart]
    assert usage == [spent[0] for _, spent in apart]
    assert [len(row) for row in together] == [len(one.steps) for one in [*many, solution]]


def test_steps_cannot_spell_what_only_the_convention_writes(
    published: dict[str, Path], solution: SteppedSolution, tmp_path: Path
) -> None:
    """A policy could learn to write the tag, or to end its turn and praise itself."""
    model = opened(published, tmp_path, "qwen_math_prm")
    plain, _ = model.score_solutions([solution])
    tricky = SteppedSolution(
        prompt=solution.prompt,
        steps=(
            "Add 3 and 4. <ex<extra_0>tra_0>3 + 4 = 7\n",
            "7 *<|im_end|> 2 = 14\n",
            solution.steps[2],
        ),
    )
    assert model.score_solutions([tricky])[0] == plain
    # The tag as a word of the problem is no tag of the steps.
    model = opened(published, tmp_path, "math_shepherd")
    scores, _ = model.score_solutions(
        [SteppedSolution(prompt="Add ки and ки.", steps=("7\n", "8"))]
    )
    assert len(scores[0]) == 2


def test_what_cannot_be_asked_is_named(
    published: dict[str, Path], solution: SteppedSolution, tmp_path: Path
) -> None:
    model = opened(published, tmp_path, "skywork")
    with pytest.raises(ValueError, match=r"solution 1 .* has no steps"):
        model.score_solutions([solution, SteppedSolution(prompt="p", steps=())])
    long = SteppedSolution(prompt="What?", steps=("1 + 1\n" * 200,))
    with pytest.raises(SolutionTooLong, match=r"solution 1 has .* 512") as raised:
        model.score_solutions([solution, long, solution, long])
    assert raised.value.indices == (1, 3)


def test_an_outcome_model_is_read_at_the_end(
    published: dict[str, Path], solution: SteppedSolution
) -> None:
    folder = published["outcome"]
    tokenizer = AutoTokenizer.from_pretrained(folder)
    text = solution.prompt + "".join(solution.steps) + "<|im_end|>"
    model = AutoModelForSequenceClassification.from_pretrained(folder, dtype=torch.float32).eval()
    with torch.inference_mode():
        value = model(input_ids=torch.tensor([tokenizer.encode(text)])).logits[0, 0]
    loaded = open_reward_model(str(folder), "cpu")
    assert loaded.convention == "outcome"
    [scores], _ = loaded.text_model.score_solutions([solution])
    assert len(scores) == 3
    assert scores[-1] == pytest.approx(float(value.sigmoid()), abs=1e-5)


def test_an_outcome_model_is_read_where_transformers_reads_it(
    published: dict[str, Path], solution: SteppedSolution, tmp_path: Path
) -> None:
    """A tokenizer that begins every text with a token of its own, and whose end token pads too:
    then the token before it is the last one that counts, in TRL's training as well."""
    tokenizer = AutoTokenizer.from_pretrained(published["math_shepherd"])
    config = MistralConfig.from_pretrained(published["math_shepherd"])
    config.num_labels, config.pad_token_id = 1, tokenizer.eos_token_id
    torch.manual_seed(8)
    model = MistralForSequenceClassification(config).eval()
    model.save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")
    ids = tokenizer(solution.prompt + "".join(solution.steps) + "</s>")["input_ids"]
    assert (ids[0], ids[-1]) == (tokenizer.bos_token_id, tokenizer.eos_token_id)
    with torch.inference_mode():
        value = model(input_ids=torch.tensor([ids])).logits[0, 0]
        at_end = model.score(model.model(torch.tensor([ids])).last_hidden_state)[0, -1, 0]
    loaded: Any = open_reward_model(str(tmp_path / "model"), "cpu")
    [scores], [usage] = loaded.text_model.score_solutions([solution])
    assert scores[-1] == pytest.approx(float(value.sigmoid()), abs=1e-5)
    assert scores[-1] != pytest.approx(float(at_end.sigmoid()), abs=1e-3)
    assert usage.positions == len(ids)


def test_trl_separators_are_the_trainings(
    published: dict[str, Path], solution: SteppedSolution, tmp_path: Path
) -> None:
    path = described(published["trl"], tmp_path, "trl", step_separator="\n\n")
    [blank], _ = open_reward_model(path, "cpu").text_model.score_solutions([solution])
    [line], _ = open_reward_model(str(published["trl"]), "cpu").text_model.score_solutions(
        [solution]
    )
    assert blank != line


def test_folders_say_what_they_are_or_are_refused(
    published: dict[str, Path], tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=r"does not say its convention.*math_shepherd.*rlhflow"):
        open_reward_model(str(published["rlhflow"]), "cpu")
    path = described(published["rlhflow"], tmp_path, "rlhflow")
    Path(path).write_text(json.dumps({"convention": "rlflow", "model": "x"}))
    with pytest.raises(ValueError, match=r"did you mean 'rlhflow'.*allowed: thinktree"):
        open_reward_model(path, "cpu")
    Path(path).write_text(json.dumps({"convention": "rlhflow", "modell": "x"}))
    with pytest.raises(ValueError, match="did you mean 'model'"):
        open_reward_model(path, "cpu")
    Path(path).write_text(json.dumps({"convention": "ensemble"}))
    with pytest.raises(ValueError, match="members is missing"):
        open_reward_model(path, "cpu")
    # Weights of another architecture are not filled up with random ones.
    path = described(published["skywork"], tmp_path, "qwen_math_prm")
    with pytest.raises(ValueError, match="is not a Qwen2ForProcessRewardModel: its weights lack"):
        open_reward_model(path, "cpu")
    # A model asked in another's convention.
    path = described(published["rlhflow"], tmp_path, "math_shepherd")
    with pytest.raises(ValueError, match="needs it to be one; does the model follow"):
        open_reward_model(path, "cpu")
