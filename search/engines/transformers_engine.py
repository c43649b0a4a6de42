"""Generation with a transformers model and a decode loop of this project.

The loop does four things that `generate` of transformers does not do together. It prefills each
prefix once for all of its samples. It removes finished rows from the batch. It draws noise that
depends on the request alone. It counts the computation exactly.

Legend: P prefixes (one per request), R rows (samples), L cache length (padded), V
vocabulary.

The token at position i of a row lies at place i of its keys and values, and places after the last
token are not read. On a CPU in fp32 the logits of a row are bit-identical, whatever other rows are
in the batch (rewards/models/bit_identity.py), and whether the keys and values of its prefix were
kept or are computed (rewards/models/row_cache.py). Without `bit_identical` there are no padding
rows, small batches are faster, and the last bits of log-probabilities may depend on the other rows
and on what is kept, so about one sampled token in a million differs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from data.flops import flop_model
from data.progress import BatchProgress
from data.types import Sample, StopReason
from rewards.base import NO_CONTEXT_LIMIT
from rewards.models.bit_identity import (
    BLOCK,
    batches_by_length,
    batches_of_one_length,
    use_plain_attention_on_cpu,
)
from rewards.models.prefix_reader import PrefixReader, shared_beginnings
from rewards.models.row_cache import RowCache, row_attention
from rewards.models.vocabulary import forbid_unknown_tokens
from search.base import ChoiceRequest, ChoiceResult, SampleRequest, SampleResult
from search.engines.costs import choice_usage
from search.engines.drawing import draw, draw_logprobs, excluded_tokens
from search.engines.sampled_rows import Row, add_draws, row_starts
from search.engines.token_policy import TokenPolicy

ROOM = 64  # places for new tokens that a batch has at first


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
    kept_prefixes_mib: int = 0
    """Memory for the keys and values of prefixes, in MiB; 0: every request computes its prefix."""

    def __post_init__(self) -> None:
        if self.kept_prefixes_mib < 0:
            raise ValueError(
                f"kept_prefixes_mib is {self.kept_prefixes_mib}; it must not be negative"
            )
        if self.max_rows < BLOCK:
            raise ValueError(f"max_rows is {self.max_rows}; it must be at least {BLOCK}")


class TransformersEngine(TokenPolicy):
    """Implements `search.base.Engine` for a causal language model and its tokenizer. The context is
    that of the model or `max_context`, whichever is less."""

    def __init__(self, model: Any, tokenizer: Any, config: EngineConfig) -> None:
        limit = getattr(model.config.get_text_config(), "max_position_embeddings", None)
        super().__init__(
            tokenizer,
            flop_model(model),
            seed=config.seed,
            context_length=min(limit or NO_CONTEXT_LIMIT, config.max_context or NO_CONTEXT_LIMIT),
            step_delimiter=config.step_delimiter,
        )
        self.model = model.eval()
        use_plain_attention_on_cpu(model)
        self.config = config
        self.prefixes = PrefixReader(
            self.model,
            0,
            mib=config.kept_prefixes_mib,
            bit_identical=config.bit_identical,
            max_rows=config.max_rows,
        )
        self._padding = 0  # positions of padding that went through the model in decoding
        forbid_unknown_tokens(model, tokenizer)
        # Called after every token of a batch: its requests, and the rows that are decoded. It may
        # end a row by giving it a stop reason.
        self.on_tokens: (
            Callable[[Sequence[tuple[str, SampleRequest]], Sequence[Row]], None] | None
        ) = None

    @property
    def padding_positions(self) -> int:
        """Positions of padding that went through the model."""
        return self._padding + self.prefixes.padding_positions

    @property
    def loaded_positions(self) -> int:
        """Positions whose keys and values were taken from memory instead of the model."""
        return self.prefixes.loaded_positions

    def sample_batch(self, items: Sequence[tuple[str, SampleRequest]]) -> list[SampleResult]:
        """Raises the errors of `check_sample`."""
        for problem_id, request in items:
            self.check_sample(problem_id, request)
        batches = batches_by_length(
            [len(request.prefix) for _, request in items],
            [request.n for _, request in items],
            self.config.max_rows,
        )
        self._read_shared([(name, request.prefix[:-1]) for name, request in items])
        found: dict[int, SampleResult] = {}
        progress = BatchProgress("samples", sum(request.n for _, request in items))
        for batch in batches:
            results = self._sample_rows([items[i] for i in batch], progress)
            found |= zip(batch, results, strict=True)
        return [found[i] for i in range(len(items))]

    @torch.inference_mode()
    def _read_shared(self, prefixes: Sequence[tuple[str, Sequence[int]]]) -> None:
        """Read once what the requests of a problem have in common, if it can be kept."""
        if self.prefixes.kept is not None and (shared := shared_beginnings(prefixes)):
            self.prefixes.read(shared, self.prefixes.known(shared), logits_to_keep=1)

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
        rows = self.prefixes.padded(len(requests))
        length = self.prefixes.padded(max(len(request.prefix) for request in requests))
        ids_RL = torch.full((rows, length), self.end_token_id, dtype=torch.long)
        mask_RL = torch.zeros((rows, length), dtype=torch.long)
        mask_RL[:, 0] = 1
        for i, request in enumerate(requests):
            ids_RL[i, : len(request.prefix)] = torch.tensor(request.prefix)
            mask_RL[i, : len(request.prefix)] = 1
        self._padding += rows * length - sum(len(r.prefix) for r in requests)
        device = self.model.device
        logits_RLV = self.model(
            input_ids=ids_RL.to(device), attention_mask=mask_RL.to(device)
        ).logits
        results: list[ChoiceResult] = []
        for i, request in enumerate(requests):
            n = len(request.prefix)
            probabilities_V = torch.softmax(logits_RLV[i, n - 1].float(), dim=-1)
            usage = choice_usage(self.flops, n)
            chosen = tuple(float(probabilities_V[option]) for option in request.options)
            results.append(ChoiceResult(probabilities=chosen, usage=usage))
        return results

    @torch.inference_mode()
    def _sample_rows(
        self, items: Sequence[tuple[str, SampleRequest]], progress: BatchProgress
    ) -> list[SampleResult]:
        rows, cache, first_RV = self._prefill(items)
        keys_R, temperature_R, token_R, position_R = row_starts(
            items, rows, self.config.seed, self.model.device
        )
        alive: list[Row] = list(rows)
        unfinished = sum(request.n for _, request in items)
        longest = max(len(request.prefix) for _, request in items)
        with_draws = any(request.with_draws for _, request in items)
        step = 0
        while True:
            logits_RV = first_RV
            if step or logits_RV is None:
                with row_attention(self.model):
                    output = cache.forward(token_R[:, None], position_R, longest + step)
                logits_RV = output.logits[:, -1]
            excluded_RV = None
            if step == 0:
                excluded_RV = excluded_tokens(
                    [items[row.request][1].excluded for row in alive], logits_RV
                )
            token_R, logprob_R, entropy_R = draw(
                logits_RV, keys_R, temperature_R, step, excluded_RV
            )
            self._record(items, alive, token_R, logprob_R, entropy_R)
            if self.on_tokens is not None:
                self.on_tokens(items, alive)
            if with_draws:
                drawn_R = draw_logprobs(logits_RV, token_R, temperature_R, excluded_RV)
                add_draws(alive, logprob_R, entropy_R, drawn_R)
            step += 1
            position_R = position_R + 1
            running = [i for i, row in enumerate(alive) if row.stop_reason is None]
            progress.add(unfinished - len(running), tokens=unfinished)
            unfinished = len(running)
            if not running:
                break
            finished = [i for i, row in enumerate(alive) if row.stop_reason is not None]
            spare = self.prefixes.padded(len(running)) - len(running)
            keep = sorted([*running, *finished[:spare]])
            if len(keep) <= 0.8 * len(alive):
                self._keep_samples(items, alive, cache)
                select = torch.tensor(keep, device=self.model.device)
                cache.take(select)
                alive = [alive[i] for i in keep]
                token_R, position_R = token_R[select], position_R[select]
                keys_R, temperature_R = keys_R[select], temperature_R[select]
        self._keep_samples(items, alive, cache)
        return self._collect(items, rows)

    def _prefill(
        self, items: Sequence[tuple[str, SampleRequest]]
    ) -> tuple[list[Row], RowCache, Tensor | None]:
        """The rows of the samples, the keys and values of their prefixes without the last token,
        and None. Single samples need no forward pass of the last token alone: it is read with the
        prefix, and the third result is its logits, for prefixes with equally many new tokens."""
        requests = [request for _, request in items]
        entries = self.prefixes.known([request.prefix[:-1] for request in requests])
        new = {len(r.prefix) - len(known) for r, known in zip(requests, entries, strict=True)}
        whole = all(r.n == 1 for r in requests) and len(new) == 1 and not self.config.bit_identical
        prefixes = [r.prefix if whole else r.prefix[:-1] for r in requests]
        last: list[Tensor] = []
        room = 1 + max(request.max_new_tokens for request in requests)
        cache = self.prefixes.read(
            prefixes,
            entries,
            room=min(room, ROOM),
            see=lambda rows, starts, output: last.append(output.logits[:, -1]),
            logits_to_keep=1,
        )
        rows = [
            Row(request=i, index=request.first_index + j)
            for i, (_, request) in enumerate(items)
            for j in range(request.n)
        ]
        for _ in range(self.prefixes.padded(len(rows)) - len(rows)):  # rows that only fill up
            rows.append(Row(request=0, index=0, stop_reason=StopReason.LENGTH))
        owners = [row.request for row in rows]
        if owners != list(range(cache.rows)):
            cache.take(torch.tensor(owners, device=self.model.device))
        return rows, cache, torch.cat(last) if whole else None

    def _keep_samples(
        self, items: Sequence[tuple[str, SampleRequest]], alive: Sequence[Row], cache: RowCache
    ) -> None:
        """Keep the keys and values of finished samples. The last token of a sample has none."""
        if self.prefixes.kept is None:
            return
        finished: list[tuple[int, tuple[int, ...]]] = []
        for i, row in enumerate(alive):
            if row.stop_reason is not None and row.token_ids and not row.kept:
                row.kept = True
                finished.append((i, (*items[row.request][1].prefix, *row.token_ids[:-1])))
        self.prefixes.kept.keep(cache, finished)

    def _record(
        self,
        items: Sequence[tuple[str, SampleRequest]],
        alive: Sequence[Row],
        token_R: Any,
        logprob_R: Any,
        entropy_R: Any,
    ) -> None:
        tokens: list[int] = token_R.tolist()
        logprobs: list[float] = logprob_R.tolist()
        entropies: list[float] = entropy_R.tolist()
        for row, token, logprob, entropy in zip(alive, tokens, logprobs, entropies, strict=True):
            if row.stop_reason is not None:
                self._padding += 1
                continue
            request = items[row.request][1]
            row.add(token, logprob, entropy, ends_step=self.ends_step[token])
            if token in self._end_token_ids:
                row.stop_reason = StopReason.END_OF_SOLUTION
            elif len(request.prefix) + len(row.token_ids) >= self.context_length:
                row.stop_reason = StopReason.CONTEXT
            elif request.stop_at_step and self.ends_step[token]:
                row.stop_reason = StopReason.STEP_END
            elif len(row.token_ids) >= request.max_new_tokens:
                row.stop_reason = StopReason.LENGTH

    def _collect(
        self, items: Sequence[tuple[str, SampleRequest]], rows: Sequence[Row]
    ) -> list[SampleResult]:
        samples: list[list[Sample]] = [[] for _ in items]
        for row in rows:
            if row.token_ids:  # the other rows only fill up
                with_draws = items[row.request][1].with_draws
                samples[row.request].append(row.sample(with_draws=with_draws))
        return [
            SampleResult(
                samples=tuple(group),
                usage=self.sample_usage(
                    len(request.prefix), [len(sample.token_ids) for sample in group]
                ),
            )
            for (_, request), group in zip(items, samples, strict=True)
        ]
