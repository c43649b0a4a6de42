"""Generation by any OpenAI-compatible server: text in, text out (docs/engines.md).

Samples are not exact, because text is: the server encodes the prefix again, and its answer is
encoded again here, so the tokens of a step need not be those that the model sampled. What the
server takes from its own defaults, such as top-k, is its own. The rest is as with vLLM servers
(search/engines/vllm_server.py): every sample is a request of its own, with its own seed.

A step ends after the first delimiter. A server that names the string that ended a text is told to
stop there. With another one the whole `max_new_tokens` may be generated, and the text is cut here:
it does not say whether the delimiter or the end of the solution ended a text.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

from data.flops import FlopModel
from data.types import Sample, ServedTokens, StopReason
from search.base import ChoiceRequest, ChoiceResult, SampleRequest, SampleResult
from search.engines.model_server import EngineRefused, ModelServers
from search.engines.openai_protocol import OpenAIDialect, TextAnswer
from search.engines.server_engine import ServerEngine
from search.noise import row_key

SEED_MASK = 2**31 - 1  # servers take other ranges of seeds; all take these
MOST_STOPS = 4  # of one request, by the protocol


@dataclass(frozen=True, kw_only=True)
class _Cut:
    """The text of a sample, and why it ended there. `reason` LENGTH may also be the context."""

    text: str
    reason: StopReason


class OpenAIEngine(ServerEngine[TextAnswer]):
    """Implements `search.continuous.AsyncEngine`. The tokenizer is that of the served model."""

    def __init__(
        self,
        servers: ModelServers[TextAnswer],
        dialect: OpenAIDialect,
        tokenizer: Any,
        flops: FlopModel,
        *,
        seed: int,
        context_length: int,
        vocab_size: int,
    ) -> None:
        super().__init__(
            servers,
            tokenizer,
            flops,
            seed=seed,
            context_length=context_length,
            vocab_size=vocab_size,
        )
        self.dialect = dialect
        texts = [tokenizer.decode([id]) for id in sorted(self.end_token_ids)]
        self.end_strings = tuple(text for text in texts if text.strip())

    @property
    def gives_logprobs(self) -> bool:
        """Whether the servers give log-probabilities; without them those of nodes are NaN."""
        return self.dialect.gives_logprobs

    async def sample(self, problem: str, request: SampleRequest, order: int = 0) -> SampleResult:
        """Raises the errors of `ServerEngine.answers`."""
        answers = await self.answers(problem, request, order)
        length = len(request.prefix)
        samples = [self._sample(request, answer) for answer in answers]
        generated = [
            len(sample.token_ids) if answer.generated_tokens is None else answer.generated_tokens
            for sample, answer in zip(samples, answers, strict=True)
        ]
        return SampleResult(
            samples=tuple(samples),
            usage=self.sample_usage(length, [max(1, tokens) for tokens in generated]),
            served=_served(length, answers, generated),
        )

    async def choose(self, problem: str, request: ChoiceRequest, order: int = 0) -> ChoiceResult:
        """Raises EngineRefused: a server of text gives no probability of a token that was asked
        for."""
        raise EngineRefused(
            f"problem {problem}: probabilities of given tokens (guidance self_evaluation) need the "
            "engine transformers or vllm_server"
        )

    def fields(self, problem: str, request: SampleRequest, index: int) -> dict[str, Any]:
        fields: dict[str, Any] = {
            "prompt": self.decode_prompt(request.prefix),
            "max_tokens": self.new_tokens(request),
            "temperature": request.temperature,
            "seed": row_key(self.seed, problem, request.node, index) & SEED_MASK,
        }
        at_step = request.stop_at_step and self.dialect.names_stops
        stops = ([self.step_delimiter] if at_step else []) + list(self.end_strings)
        return fields | {"stop": stops[:MOST_STOPS]}

    def _sample(self, request: SampleRequest, answer: TextAnswer) -> Sample:
        cut = self._cut(request, answer)
        token_ids, reason = self._encoded(cut.text), cut.reason
        if cut.text and not token_ids:
            reason = StopReason.LENGTH
        elif reason is StopReason.END_OF_SOLUTION:
            token_ids = (*token_ids, self.end_token_id)
        if not token_ids:  # nothing that a search could grow: the path is cut off, without answer
            token_ids, reason = (self.end_token_id,), StopReason.LENGTH
        elif len(request.prefix) + len(token_ids) >= self.context_length:
            reason = StopReason.CONTEXT
        logprobs = self._step_logprobs(token_ids, cut.text, answer)
        return Sample(
            token_ids=token_ids,
            step_logprobs=logprobs,
            step_entropies=tuple(-value for value in logprobs),
            stop_reason=reason,
        )

    def _encoded(self, text: str) -> tuple[int, ...]:
        """() for a text that the policy's tokens cannot be, such as one with a special token."""
        try:
            return self.encode(text) if text else ()
        except ValueError:
            return ()

    def _cut(self, request: SampleRequest, answer: TextAnswer) -> _Cut:
        text, delimiter = answer.text, self.step_delimiter
        ended = answer.finish == "stop"
        found = [at for end in self.end_strings if (at := text.find(end)) >= 0]
        if found:
            text, ended = text[: min(found)], True
        if request.stop_at_step:
            if answer.stopped_by == delimiter and delimiter not in text:
                text += delimiter  # a stop string is left out of the text
            if (at := text.find(delimiter)) >= 0:
                return _Cut(text=text[: at + len(delimiter)], reason=StopReason.STEP_END)
        reason = StopReason.END_OF_SOLUTION if ended else StopReason.LENGTH
        return _Cut(text=text, reason=reason)

    def _step_logprobs(
        self, token_ids: Sequence[int], text: str, answer: TextAnswer
    ) -> tuple[float, ...]:
        """The log-probability of each step, in nats: that of the server's tokens that begin in it.
        The last step also has that of the end token."""
        ends = self.step_ends(token_ids)
        if answer.token_texts is None or answer.logprobs is None:
            return (math.nan,) * len(ends)
        starts = [0, *(end + 1 for end in ends[:-1])]
        lengths = [
            len(self.decode(token_ids[start : end + 1]))
            for start, end in zip(starts, ends, strict=True)
        ]
        until = list(accumulate(lengths))
        sums = [0.0] * len(ends)
        at = 0
        for token_text, logprob in zip(answer.token_texts, answer.logprobs, strict=True):
            step = next((i for i, end in enumerate(until) if at < end), len(ends) - 1)
            sums[step] += logprob
            at += len(token_text)
            if at > len(text) or (at == len(text) and token_ids[-1] not in self.end_token_ids):
                break
        return tuple(sums)


def _served(length: int, answers: Sequence[TextAnswer], generated: Sequence[int]) -> ServedTokens:
    """What the servers did, by their own counts; by ours where they give none."""
    prompts = [length if a.prompt_tokens is None else a.prompt_tokens for a in answers]
    cached = sum(answer.cached_tokens for answer in answers)
    return ServedTokens(
        requests=len(answers),
        computed_tokens=sum(prompts) - cached,
        cached_tokens=cached,
        generated_tokens=sum(generated),
    )
