"""Generation with a transformers model and a decode loop of this project.

The loop does four things that `generate` of transformers does not do together. It prefills each
prefix once for all of its samples. It removes finished rows from the batch. It draws noise that
depends on the request alone. It counts the computation exactly.

Legend: P prefixes (one per request), R rows (samples), L cache length (padded), V
vocabulary.

A row has its prefix tokens at cache slots 0..p-2, then padding up to a multiple of 16, then the
last prefix token and the generated tokens. Padding is masked, positions are explicit, and all
prefixes of a batch have the same padded length. On a CPU in fp32 the logits of a row are therefore
bit-identical, whatever other rows are in the batch (rewards/models/bit_identity.py). Without
`bit_identical` there is no such padding, and small batches are faster. A model with sliding windows
has the padding before the prefix, where the last bits depend on the batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache

from data.flops import FlopModel, flop_model
from data.progress import BatchProgress
from data.steps import step_ends
from data.token_text import TokenText
from data.types import ModelUsage, Sample, StopReason, TokenDraws
from rewards.base import NO_CONTEXT_LIMIT
from rewards.models.bit_identity import (
    BLOCK,
    batches_of_one_length,
    padded,
    use_plain_attention_on_cpu,
)
from rewards.models.vocabulary import forbid_unknown_tokens
from search.base import ChoiceRequest, ChoiceResult, SampleRequest, SampleResult
from search.engines.drawing import draw, draw_logprobs, excluded_tokens
from search.noise import row_key


@dataclass(frozen=True, kw_only=True)
class EngineConfig:
    """Settings of the engine that decodes with transformers."""

    seed: int
    """Seed of all samples."""
    max_rows: int = 512
    """Samples decoded at once."""
    step_delimiter: str = "\n"
    """Text that ends a step."""
    max_context: int = 0
    """Limit of the context, in tokens; 0: the whole context of the model."""
    bit_identical: bool = True
    """Pad rows and prefixes to multiples of 16, so that on a CPU a sample does not depend on the
    other samples of its batch; without it, one sample alone is about three times as fast."""

    def __post_init__(self) -> None:
        if self.max_rows < BLOCK:
            raise ValueError(f"max_rows is {self.max_rows}; it must be at least {BLOCK}")


_Draw = tuple[float, float, float]  # the numbers of `data.types.TokenDraws` for one token


@dataclass(slots=True)
class _Row:
    request: int
    index: int
    token_ids: list[int]
    step_logprobs: list[float] = field(default_factory=list[float])
    step_entropies: list[float] = field(default_factory=list[float])
    new_step: bool = True
    stop_reason: StopReason | None = None
    draws: list[tuple[float, float, float]] = field(
        default_factory=list[tuple[float, float, float]]
    )


class TransformersEngine:
    """Implements `search.base.Engine` for a causal language model and its tokenizer."""

    def __init__(self, model: Any, tokenizer: Any, config: EngineConfig) -> None:
        self.model = model.eval()
        use_plain_attention_on_cpu(model)
        self.tokenizer = tokenizer
        self.config = config
        self.flops: FlopModel = flop_model(model)
        self.padding_positions = 0  # positions of padding that went through the model
        self._text = TokenText(tokenizer)
        if self._text.end_token_id is None:
            raise ValueError("the tokenizer has no end-of-sequence token")
        self._end_token_id: int = self._text.end_token_id
        self._end_token_ids = self._text.end_token_ids
        forbid_unknown_tokens(model, tokenizer)
        self._texts = self._text.token_texts()
        self._ends_step = [config.step_delimiter in text for text in self._texts]

        text_config = model.config.get_text_config()
        # A sliding window counts slots of the cache, so no padding may lie between tokens.
        self._pads_left = bool(getattr(text_config, "sliding_window", None))
        limit = getattr(text_config, "max_position_embeddings", None)
        self._context_length: int = min(
            limit or NO_CONTEXT_LIMIT, config.max_context or NO_CONTEXT_LIMIT
        )

    @property
    def end_token_id(self) -> int:
        return self._end_token_id

    @property
    def end_token_ids(self) -> frozenset[int]:
        return self._end_token_ids

    @property
    def begin_ids(self) -> tuple[int, ...]:
        return self._text.begin_ids

    @property
    def context_length(self) -> int:
        """The context length in tokens: that of the model or `max_context`, whichever is less."""
        return self._context_length

    @property
    def seed(self) -> int:
        return self.config.seed

    def _padded(self, length: int) -> int:
        return padded(length) if self.config.bit_identical else length

    def encode_prompt(self, text: str) -> tuple[int, ...]:
        """Token ids of a text that nothing precedes. Raises the errors of `TokenText`."""
        return self._text.encode_prompt(text)

    def encode(self, text: str) -> tuple[int, ...]:
        """Token ids of a text that follows other text. Raises ValueError for text that the
        vocabulary lacks; the message names that text."""
        return self._text.encode(text)

    def decode(self, token_ids: Sequence[int]) -> str:
        """The text that generated ids add to the text before them, without end tokens."""
        return self._text.decode(token_ids)

    def decode_prompt(self, token_ids: Sequence[int]) -> str:
        """The text of a prompt's ids."""
        return self._text.decode_prompt(token_ids)

    def step_ends(self, token_ids: Sequence[int]) -> list[int]:
        """The offset of the last token of each step (see `data.steps.step_ends`)."""
        texts = [self._texts[token] for token in token_ids]
        return step_ends(texts, self.config.step_delimiter)

    def sample_usage(self, prefix_length: int, lengths: Sequence[int]) -> ModelUsage:
        """The cost of n samples of one prefix that have the given lengths in tokens.

        The prefix without its last token goes through the model once. For every sample, the last
        prefix token and all generated tokens but the last one go through the model.
        """
        shared = prefix_length - 1
        generated = sum(lengths)
        flops = self.flops.forward(0, shared, outputs=1) + sum(
            self.flops.forward(shared, shared + length) for length in lengths
        )
        return ModelUsage(
            prompt_tokens=shared + len(lengths),
            cached_tokens=shared * (len(lengths) - 1),
            generated_tokens=generated,
            positions=shared + generated,
            sequences=len(lengths),
            flops=flops,
        )

    def prefix_flops(self, length: int) -> float:
        return self.flops.forward(0, length, outputs=0)

    def sample_batch(self, items: Sequence[tuple[str, SampleRequest]]) -> list[SampleResult]:
        """Raises ValueError for a prefix of fewer than 2 tokens, for a prefix that fills the
        context, and for a request of 0 samples or 0 tokens."""
        for problem_id, request in items:
            if len(request.prefix) < 2 or request.n < 1 or request.max_new_tokens < 1:
                raise ValueError(
                    f"problem {problem_id}: a sample request needs a prefix of at least 2 tokens "
                    f"(has {len(request.prefix)}), n >= 1 (has {request.n}) and max_new_tokens >= "
                    f"1 (has {request.max_new_tokens})"
                )
            if len(request.prefix) >= self.context_length:
                raise ValueError(
                    f"problem {problem_id}: a prefix of {len(request.prefix)} tokens leaves no "
                    f"room in the model's context of {self.context_length}"
                )
        batches = batches_of_one_length(
            [len(request.prefix) - 1 for _, request in items],
            [request.n for _, request in items],
            self.config.max_rows,
        )
        found: dict[int, SampleResult] = {}
        progress = BatchProgress("samples", sum(request.n for _, request in items))
        for batch in batches:
            results = self._sample_rows([items[i] for i in batch], progress)
            found |= zip(batch, results, strict=True)
        return [found[i] for i in range(len(items))]

    def choice_batch(self, items: Sequence[tuple[str, ChoiceRequest]]) -> list[ChoiceResult]:
        """Raises ValueError for an empty prefix and for one that does not fit into the context."""
        for problem_id, request in items:
            if not 1 <= len(request.prefix) <= self.context_length:
                raise ValueError(
                    f"problem {problem_id}: the prefix has {len(request.prefix)} tokens; it must "
                    f"have 1 to {self.context_length}"
                )
        lengths = [len(request.prefix) for _, request in items]
        found: dict[int, ChoiceResult] = {}
        progress = BatchProgress("choices", len(items))
        for batch in batches_of_one_length(lengths, [1] * len(items), self.config.max_rows):
            results = self._choice_rows([items[i][1] for i in batch])
            found |= zip(batch, results, strict=True)
            progress.add(len(batch), sum(lengths[i] for i in batch))
        return [found[i] for i in range(len(items))]

    @torch.inference_mode()
    def _choice_rows(self, requests: Sequence[ChoiceRequest]) -> list[ChoiceResult]:
        rows = self._padded(len(requests))
        length = self._padded(max(len(request.prefix) for request in requests))
        ids_RL = torch.full((rows, length), self.end_token_id, dtype=torch.long)
        mask_RL = torch.zeros((rows, length), dtype=torch.long)
        mask_RL[:, 0] = 1
        for i, request in enumerate(requests):
            ids_RL[i, : len(request.prefix)] = torch.tensor(request.prefix)
            mask_RL[i, : len(request.prefix)] = 1
        self.padding_positions += rows * length - sum(len(r.prefix) for r in requests)
        device = self.model.device
        logits_RLV = self.model(
            input_ids=ids_RL.to(device), attention_mask=mask_RL.to(device)
        ).logits
        results: list[ChoiceResult] = []
        for i, request in enumerate(requests):
            n = len(request.prefix)
            probabilities_V = torch.softmax(logits_RLV[i, n - 1].float(), dim=-1)
            usage = ModelUsage(
                prompt_tokens=n, positions=n, sequences=1, flops=self.flops.forward(0, n)
            )
            chosen = tuple(float(probabilities_V[option]) for option in request.options)
            results.append(ChoiceResult(probabilities=chosen, usage=usage))
        return results

    @torch.inference_mode()
    def _sample_rows(
        self, items: Sequence[tuple[str, SampleRequest]], progress: BatchProgress
    ) -> list[SampleResult]:
        rows, cache, mask_RL = self._prefill(items)
        keys_R = torch.tensor(
            [
                row_key(self.config.seed, items[r.request][0], items[r.request][1].node, r.index)
                for r in rows
            ],
            device=self.model.device,
        )
        temperature_R = torch.tensor(
            [items[r.request][1].temperature for r in rows], device=self.model.device
        )
        token_R = torch.tensor(
            [items[r.request][1].prefix[-1] for r in rows], device=self.model.device
        )
        position_R = torch.tensor(
            [len(items[r.request][1].prefix) - 1 for r in rows], device=self.model.device
        )
        alive: list[_Row] = list(rows)
        unfinished = sum(request.n for _, request in items)
        step = 0
        while True:
            mask_RL = torch.cat([mask_RL, mask_RL.new_ones(len(alive), 1)], dim=1)
            logits_RV = self.model(
                input_ids=token_R[:, None],
                attention_mask=mask_RL,
                position_ids=position_R[:, None],
                past_key_values=cache,
                use_cache=True,
            ).logits[:, -1]
            excluded_RV = None
            if step == 0:
                excluded_RV = excluded_tokens(
                    [items[row.request][1].excluded for row in alive], logits_RV
                )
            token_R, logprob_R, entropy_R = draw(
                logits_RV, keys_R, temperature_R, step, excluded_RV
            )
            self._record(items, alive, token_R, logprob_R, entropy_R)
            if any(request.with_draws for _, request in items):
                drawn_R = draw_logprobs(logits_RV, token_R, temperature_R, excluded_RV)
                _record_draws(alive, logprob_R, entropy_R, drawn_R)
            step += 1
            position_R = position_R + 1
            running = [i for i, row in enumerate(alive) if row.stop_reason is None]
            progress.add(unfinished - len(running), tokens=unfinished)
            unfinished = len(running)
            if not running:
                break
            finished = [i for i, row in enumerate(alive) if row.stop_reason is not None]
            keep: list[int] = sorted(
                [*running, *finished[: self._padded(len(running)) - len(running)]]
            )
            if len(keep) <= 0.8 * len(alive):
                select = torch.tensor(keep, device=self.model.device)
                cache.batch_select_indices(select)
                alive = [alive[i] for i in keep]
                mask_RL, token_R, position_R = mask_RL[select], token_R[select], position_R[select]
                keys_R, temperature_R = keys_R[select], temperature_R[select]
        return self._collect(items, rows)

    def _prefill(
        self, items: Sequence[tuple[str, SampleRequest]]
    ) -> tuple[list[_Row], DynamicCache, Tensor]:
        device = self.model.device
        length = self._padded(max(len(request.prefix) - 1 for _, request in items))
        ids_PL = torch.full((len(items), length), self.end_token_id, dtype=torch.long)
        mask_PL = torch.zeros((len(items), length), dtype=torch.long)
        for i, (_, request) in enumerate(items):
            known = len(request.prefix) - 1
            start = length - known if self._pads_left else 0
            ids_PL[i, start : start + known] = torch.tensor(request.prefix[:-1])
            mask_PL[i, start : start + known] = 1
        cache = DynamicCache(config=self.model.config)
        self.model(
            input_ids=ids_PL.to(device),
            attention_mask=mask_PL.to(device),
            position_ids=self._prefix_positions(mask_PL).to(device),
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=1,
        )
        self.padding_positions += int((1 - mask_PL).sum())
        rows = [
            _Row(request=i, index=request.first_index + j, token_ids=[])
            for i, (_, request) in enumerate(items)
            for j in range(request.n)
        ]
        owners = [row.request for row in rows]
        fillers = self._padded(len(rows)) - len(rows)
        for _ in range(fillers):
            rows.append(_Row(request=0, index=0, token_ids=[], stop_reason=StopReason.LENGTH))
            owners.append(0)
        owner_R = torch.tensor(owners, device=device)
        cache.batch_select_indices(owner_R)
        return rows, cache, mask_PL.to(device)[owner_R]

    def _prefix_positions(self, mask_PL: Tensor) -> Tensor:
        if self._pads_left:
            return (mask_PL.cumsum(dim=1) - 1).clamp(min=0)
        return torch.arange(mask_PL.shape[1])[None].expand(len(mask_PL), -1)

    def _record(
        self,
        items: Sequence[tuple[str, SampleRequest]],
        alive: Sequence[_Row],
        token_R: Any,
        logprob_R: Any,
        entropy_R: Any,
    ) -> None:
        tokens: list[int] = token_R.tolist()
        logprobs: list[float] = logprob_R.tolist()
        entropies: list[float] = entropy_R.tolist()
        for row, token, logprob, entropy in zip(alive, tokens, logprobs, entropies, strict=True):
            if row.stop_reason is not None:
                self.padding_positions += 1
                continue
            request = items[row.request][1]
            row.token_ids.append(token)
            if row.new_step:
                row.step_logprobs.append(0.0)
                row.step_entropies.append(0.0)
            row.step_logprobs[-1] += logprob
            row.step_entropies[-1] += entropy
            row.new_step = self._ends_step[token]
            if token in self._end_token_ids:
                row.stop_reason = StopReason.END_OF_SOLUTION
            elif len(request.prefix) + len(row.token_ids) >= self.context_length:
                row.stop_reason = StopReason.CONTEXT
            elif request.stop_at_step and self._ends_step[token]:
                row.stop_reason = StopReason.STEP_END
            elif len(row.token_ids) >= request.max_new_tokens:
                row.stop_reason = StopReason.LENGTH

    def _collect(
        self, items: Sequence[tuple[str, SampleRequest]], rows: Sequence[_Row]
    ) -> list[SampleResult]:
        samples: list[list[Sample]] = [[] for _ in items]
        for row in rows:
            if not row.token_ids:  # a filler row
                continue
            assert row.stop_reason is not None
            samples[row.request].append(
                Sample(
                    token_ids=tuple(row.token_ids),
                    step_logprobs=tuple(row.step_logprobs),
                    step_entropies=tuple(row.step_entropies),
                    stop_reason=row.stop_reason,
                    draws=_token_draws(row) if items[row.request][1].with_draws else None,
                )
            )
        return [
            SampleResult(
                samples=tuple(group),
                usage=self.sample_usage(
                    len(request.prefix), [len(sample.token_ids) for sample in group]
                ),
            )
            for (_, request), group in zip(items, samples, strict=True)
        ]


def _record_draws(
    alive: Sequence[_Row], logprob_R: Tensor, entropy_R: Tensor, drawn_R: Tensor
) -> None:
    numbers = zip(logprob_R.tolist(), entropy_R.tolist(), drawn_R.tolist(), strict=True)
    for row, of_token in zip(alive, numbers, strict=True):
        if len(row.draws) < len(row.token_ids):  # the row was not finished before this token
            row.draws.append(of_token)


def _token_draws(row: _Row) -> TokenDraws:
    logprobs, entropies, drawn = zip(*row.draws, strict=True)
    return TokenDraws(logprobs=logprobs, entropies=entropies, draw_logprobs=drawn)
