"""A search whose policy and reward model share no tokenizer, from folders."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import Qwen2Config, Qwen2ForCausalLM

from data.types import Outcome, Problem, SteppedSolution, StopReason, Verdict
from rewards.models.opening import open_reward_model
from search.batcher import run_searches
from search.settings import SearchSettings
from search.strategies.by_name import bind
from search.strategies.mcts.config import MCTSConfig
from trainer.models.loading import reward_model_from_policy, save_model
from trainer.searching.engines import load_engine

CPU = torch.device("cpu")


def unverified(problem: Problem, solution: str) -> Verdict:
    return Verdict(outcome=Outcome.UNVERIFIABLE)


def test_search_is_scored_about_the_question(
    published: dict[str, Path], tiny_policy: Any, tmp_path: Path
) -> None:
    save_model(*tiny_policy, tmp_path / "policy")
    engine, scorer = load_engine(
        str(tmp_path / "policy"), str(published["qwen_math_prm"]), seed=1, device=CPU
    )
    problem = Problem(id="p", prompt="1 2 3 -> 6\n", answer="6")
    [result] = run_searches(
        [problem],
        bind(MCTSConfig(budgets=(6,))),
        engine=engine,
        scorer=scorer,
        verify=unverified,
        settings=SearchSettings(max_step_tokens=60, max_new_tokens=90, max_depth=4),
    )
    judged = (None, StopReason.END_OF_SOLUTION)  # what is truncated is worth 0 unasked
    scored = [n for n in result.nodes if n.score is not None and n.terminal in judged]
    assert len(scored) > 3 and any(node.terminal is None for node in scored)
    assert result.usage.reward.positions > 0
    reward_model: Any = open_reward_model(str(published["qwen_math_prm"]), CPU).text_model
    for node in scored:
        path, at = [], node
        while at.parent >= 0:
            path.append(at)
            at = result.nodes[at.parent]
        texts = [node.text for node in reversed(path) if node.text.strip()]
        # The settings' aggregate is the last step's score.
        asked = SteppedSolution(prompt="1 2 3 -> 6\n", steps=tuple(texts or [""]))
        [expected], _ = reward_model.score_solutions([asked])
        assert node.score == expected[-1]
    assert result.terminals[StopReason.BAD_SCORE.value] == 0


def test_a_chat_policys_question_is_unwrapped(published: dict[str, Path], tmp_path: Path) -> None:
    """The policy has a chat template of its own, with an end token inside of it."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(published["qwen_math_prm"])
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1}
    heads = {"num_attention_heads": 2, "num_key_value_heads": 2}
    policy = Qwen2ForCausalLM(Qwen2Config(vocab_size=len(tokenizer), **sizes, **heads))
    save_model(policy, tokenizer, tmp_path / "policy")
    engine, scorer = load_engine(
        str(tmp_path / "policy"), str(published["skywork"]), seed=1, device=CPU
    )
    prompt = "<|im_start|>user\nWhat is 3 + 4?<|im_end|>\n<|im_start|>assistant\n"
    assert scorer is not None
    assert scorer.question(engine.encode(prompt)) == "What is 3 + 4?"
    # Our own models learnt on whole prompts.
    ours = reward_model_from_policy(str(tmp_path / "policy"))
    save_model(ours, tokenizer, tmp_path / "prm")
    path = tmp_path / "text.yaml"
    path.write_text(json.dumps({"convention": "thinktree_text", "model": str(tmp_path / "prm")}))
    _, scorer = load_engine(str(tmp_path / "policy"), str(path), seed=1, device=CPU)
    assert scorer is not None
    assert scorer.question(engine.encode(prompt)) == prompt


def test_token_models_must_share_the_vocabulary_and_text_models_need_not(
    published: dict[str, Path], tiny_policy: Any, tmp_path: Path
) -> None:
    save_model(*tiny_policy, tmp_path / "policy")
    ours = reward_model_from_policy(str(published["rlhflow"]))
    save_model(ours, tiny_policy[1], tmp_path / "prm")
    config = json.loads((tmp_path / "prm" / "config.json").read_text())
    assert config["thinktree_convention"] == "thinktree"
    with pytest.raises(ValueError, match="they must share one tokenizer"):
        load_engine(str(tmp_path / "policy"), str(tmp_path / "prm"), seed=1, device=CPU)
    # Folders of before, without the key, are known by their labels.
    del config["thinktree_convention"]
    (tmp_path / "prm" / "config.json").write_text(json.dumps(config))
    assert open_reward_model(str(tmp_path / "prm"), CPU).convention == "thinktree"
    (tmp_path / "prm" / "config.json").write_text(
        json.dumps(config | {"thinktree_convention": "thinkthree"})
    )
    with pytest.raises(ValueError, match=r"states the convention 'thinkthree'.*one of thinktree,"):
        open_reward_model(str(tmp_path / "prm"), CPU)


def test_ours_in_text_reads_what_it_reads_in_token_ids(tiny_policy: Any, tmp_path: Path) -> None:
    save_model(*tiny_policy, tmp_path / "policy")
    torch.manual_seed(2)
    ours = reward_model_from_policy(str(tmp_path / "policy"))
    save_model(ours, tiny_policy[1], tmp_path / "prm")
    encode = tiny_policy[1].encode
    prompt, steps = "1 2 3 -> 6\n", ("1 + 2 = 3\n", "3 + 3 = 6")
    ids = encode(prompt) + encode(steps[0]) + encode(steps[1])
    first = len(encode(prompt + steps[0])) - 1
    by_ids: Any = open_reward_model(str(tmp_path / "prm"), CPU).token_model
    expected, spent = by_ids.score([ids], [[first, len(ids) - 1]])
    path = tmp_path / "text.yaml"
    path.write_text(json.dumps({"convention": "thinktree_text", "model": str(tmp_path / "prm")}))
    by_text: Any = open_reward_model(str(path), CPU).text_model
    scores, usage = by_text.score_solutions([SteppedSolution(prompt=prompt, steps=steps)])
    assert scores == expected and usage == spent
