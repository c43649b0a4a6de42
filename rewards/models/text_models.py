"""Reward models asked in text, over reward models that are asked in token ids."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from data.types import ModelUsage, SteppedSolution
from rewards.base import RewardModel, SolutionTooLong, check_steps
from rewards.models.rendering import Render


def check_lengths(lengths: Sequence[int], max_tokens: int) -> None:
    """Raises SolutionTooLong naming all solutions of more tokens than the model can take."""
    too_long = [i for i, length in enumerate(lengths) if length > max_tokens]
    if too_long:
        raise SolutionTooLong(
            f"solution {too_long[0]} has {lengths[too_long[0]]} tokens, more than the reward "
            f"model's {max_tokens} ({len(too_long)} of {len(lengths)} have)",
            indices=tuple(too_long),
            lengths=tuple(lengths[i] for i in too_long),
            limit=max_tokens,
        )


class ConventionRewardModel:
    """Implements `rewards.base.TextRewardModel`: `render` puts a solution as the model knows it,
    `model` reads it. `max_tokens` is the model's context."""

    def __init__(self, model: RewardModel, render: Render, max_tokens: int) -> None:
        self.model = model
        self.render = render
        self.max_tokens = max_tokens

    def score_solutions(
        self, solutions: Sequence[SteppedSolution]
    ) -> tuple[list[list[float]], list[ModelUsage]]:
        check_steps(solutions)
        rendered = [self.render(solution) for solution in solutions]
        check_lengths([len(r.token_ids) for r in rendered], self.max_tokens)
        return self.model.score([r.token_ids for r in rendered], [r.step_ends for r in rendered])


class GenerativeRewardModel:
    """Implements `rewards.base.TextRewardModel`: a language model is asked anew after each step.

    `ask(solution, i)` is the prompt (token ids) about steps 0..i, and `model` reads P(yes) against
    P(no) of the token after it. (Generative verifiers, 2408.15240, section 3.1, without the chain
    of thought.) A solution's usage is that of all its questions.
    """

    def __init__(
        self,
        model: RewardModel,
        ask: Callable[[SteppedSolution, int], tuple[int, ...]],
        max_tokens: int,
    ) -> None:
        self.model = model
        self.ask = ask
        self.max_tokens = max_tokens

    def score_solutions(
        self, solutions: Sequence[SteppedSolution]
    ) -> tuple[list[list[float]], list[ModelUsage]]:
        check_steps(solutions)
        asked = [[self.ask(s, i) for i in range(len(s.steps))] for s in solutions]
        check_lengths([max(map(len, prompts)) for prompts in asked], self.max_tokens)
        prompts = [prompt for of_solution in asked for prompt in of_solution]
        scores, spent = self.model.score(prompts, [[len(prompt) - 1] for prompt in prompts])
        found: list[list[float]] = []
        usage: list[ModelUsage] = []
        start = 0
        for of_solution in asked:
            end = start + len(of_solution)
            found.append([score for [score] in scores[start:end]])
            usage.append(sum(spent[start:end], ModelUsage()))
            start = end
        return found, usage
