"""Reward models that read text, built on reward models that read token ids."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from data.types import ModelUsage, SteppedSolution
from rewards.base import RewardModel, SolutionTooLong, check_steps
from rewards.models.rendering import Render


def check_lengths(lengths: Sequence[int], max_tokens: int) -> None:
    """Raises SolutionTooLong when solutions have more tokens than the model can read. The error
    lists all of them."""
    too_long = [i for i, length in enumerate(lengths) if length > max_tokens]
    if too_long:
        raise SolutionTooLong(
            f"solution {too_long[0]} has {lengths[too_long[0]]} tokens; the reward model reads at "
            f"most {max_tokens} ({len(too_long)} of {len(lengths)} solutions are too long)",
            indices=tuple(too_long),
            lengths=tuple(lengths[i] for i in too_long),
            limit=max_tokens,
        )


class ConventionRewardModel:
    """Implements `rewards.base.TextRewardModel`. `render` turns a solution into token ids by the
    model's convention, and `model` scores them. `max_tokens` is the model's context."""

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
    """Implements `rewards.base.TextRewardModel` with a language model that answers a question after
    each step (generative verifiers, 2408.15240, section 3.1, without the chain of thought).

    `ask(solution, i)` gives the prompt about steps 0..i as token ids. `model` gives
    P(yes) / (P(yes) + P(no)) for the token after the prompt. The usage of a solution is the sum
    over all of its questions.
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
