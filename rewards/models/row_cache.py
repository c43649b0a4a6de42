"""Keys and values of a batch of rows, where the token at position i of a row lies at place i.

Legend: R rows, A rows of one forward pass, T new tokens per row, H heads, G heads of keys and
values, L places that attention reads, D head size, N single tokens.

On a CPU in fp32, the keys, values and logits of a position have the same bits whether it goes
through the model alone (decoding) or with others (a prefill), and whatever lies in the places after
it. So a kept prefix gives the same result as one that is computed again. This needs three things.
The places after a position only add exact zeros to the sums of attention. A matrix product with 4
or more rows gives each row the same bits, but one with fewer rows does not: `attend` therefore has
at least 4 queries. The linear layers get a multiple of 16 rows (rewards/models/bit_identity.py).
`has_equal_bits` checks all of this on the machine at hand.
"""

# transformers has no complete types.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false
from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from transformers import AttentionInterface, Cache, DynamicCache
from transformers.cache_utils import CacheLayerMixin, DynamicLayer, DynamicSlidingWindowLayer

from rewards.models.bit_identity import BLOCK, padded

ATTENTION = "thinktree_rows"
FEWEST_QUERIES = 4
MORE_PLACES = 64  # the buffers grow by at least this many places


def attend(
    module: Any,
    query_RHTD: Tensor,
    key_RGLD: Tensor,
    value_RGLD: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    softcap: float | None = None,
    **others: Any,
) -> tuple[Tensor, None]:
    """Attention without copies of the keys and values for the heads that share them. Returns
    (R, T, H, D). `attention_mask` (R, 1, T, L) is added to the scores.

    Raises ValueError for a model whose attention has sinks.
    """
    if others.get("s_aux") is not None:
        raise ValueError("the engine cannot decode with a model whose attention has sinks")
    rows, heads, tokens, size = query_RHTD.shape
    groups, shared = key_RGLD.shape[1], heads // key_RGLD.shape[1]
    scale: float = size**-0.5 if scaling is None else scaling
    alone = tokens == 1 and rows < BLOCK  # never with bit-identical rows
    if softcap is None and (alone or query_RHTD.device.type != "cpu"):
        mixed_RHTD = functional.scaled_dot_product_attention(
            query_RHTD,
            key_RGLD,
            value_RGLD,
            attn_mask=attention_mask,
            scale=scale,
            enable_gqa=True,
        )
        return mixed_RHTD.transpose(1, 2).contiguous(), None
    # The T queries of the heads that share keys lie below each other.
    query_RGQD = query_RHTD.reshape(rows, groups, shared * tokens, size)
    queries = shared * tokens
    if queries < FEWEST_QUERIES:
        query_RGQD = functional.pad(query_RGQD, (0, 0, 0, FEWEST_QUERIES - queries))
    scores_RGQL = torch.matmul(query_RGQD, key_RGLD.transpose(2, 3)) * scale
    if softcap is not None:
        scores_RGQL = torch.tanh(scores_RGQL / softcap) * softcap
    if attention_mask is not None:
        if tokens > 1:
            attention_mask = attention_mask.repeat(1, 1, shared, 1)
            fill = scores_RGQL.shape[2] - queries
            attention_mask = functional.pad(attention_mask, (0, 0, 0, fill))
        scores_RGQL = scores_RGQL + attention_mask
    weights_RGQL = functional.softmax(scores_RGQL, dim=-1, dtype=torch.float32)
    mixed_RGQD = torch.matmul(weights_RGQL.to(value_RGLD.dtype), value_RGLD)[:, :, :queries]
    return mixed_RGQD.reshape(rows, heads, tokens, -1).transpose(1, 2).contiguous(), None


AttentionInterface.register(ATTENTION, attend)


@contextmanager
def row_attention(model: Any) -> Generator[None]:
    """A context in which the model uses `attend`."""
    config = model.config.get_text_config()
    before = config._attn_implementation
    config._attn_implementation = ATTENTION
    try:
        yield
    finally:
        config._attn_implementation = before


class _RowLayer(CacheLayerMixin):
    """The keys and values of one layer, both (R, G, places, D). The cache says which rows and
    places a forward pass writes and reads."""

    def __init__(self, cache: RowCache) -> None:
        super().__init__()
        self.cache = cache

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        self._make(key_states, value_states)

    def _make(self, key_AGTD: Tensor, value_AGTD: Tensor) -> None:
        # Zeros, because attention multiplies what nobody wrote yet by 0.
        rows, places = self.cache.rows, self.cache.places
        self.keys = key_AGTD.new_zeros(rows, key_AGTD.shape[1], places, key_AGTD.shape[3])
        self.values = value_AGTD.new_zeros(rows, value_AGTD.shape[1], places, value_AGTD.shape[3])
        self.is_initialized = True

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        if not self.is_initialized:
            self._make(key_states, value_states)
        assert self.keys is not None and self.values is not None
        cache = self.cache
        self.keys[cache.row_A1, :, cache.place_AT] = key_states.transpose(1, 2)
        self.values[cache.row_A1, :, cache.place_AT] = value_states.transpose(1, 2)
        keys, values = self.keys[:, :, : cache.length], self.values[:, :, : cache.length]
        if len(cache.row_A1) < cache.rows:
            return keys[cache.row_A1[:, 0]], values[cache.row_A1[:, 0]]
        return keys, values

    def write(self, row_N: Tensor, place_N: Tensor, key_NGD: Tensor, value_NGD: Tensor) -> None:
        """Put single tokens at these rows and places."""
        if not self.is_initialized:
            self._make(key_NGD[:, :, None], value_NGD[:, :, None])
        assert self.keys is not None and self.values is not None
        self.keys[row_N, :, place_N] = key_NGD
        self.values[row_N, :, place_N] = value_NGD

    def take(self, row_R: Tensor) -> None:
        if self.is_initialized:
            assert self.keys is not None and self.values is not None
            self.keys, self.values = self.keys[row_R], self.values[row_R]

    def grow(self, more: int) -> None:
        if self.is_initialized:
            assert self.keys is not None and self.values is not None
            self.keys = functional.pad(self.keys, (0, 0, 0, more))
            self.values = functional.pad(self.values, (0, 0, 0, more))

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        return self.cache.length, 0

    def get_seq_length(self) -> int:
        return self.cache.length

    def get_max_length(self) -> int:
        return -1


class RowCache(Cache):
    """The keys and values of `rows` rows of a model. Raises ValueError for a model with layers that
    are neither full nor sliding-window attention."""

    def __init__(self, model: Any, rows: int, places: int) -> None:
        config = model.config.get_text_config()
        kinds = DynamicCache(config=config).layers
        for kind in kinds:
            if type(kind) not in (DynamicLayer, DynamicSlidingWindowLayer):
                raise ValueError(
                    f"{type(model).__name__} has layers of the kind {type(kind).__name__}; the "
                    "engine decodes only with full attention and sliding windows"
                )
        super().__init__(layers=[_RowLayer(self) for _ in range(config.num_hidden_layers)])
        windows = {getattr(kind, "sliding_window", 0) for kind in kinds} or {0}
        self.model = model
        self.windows = sorted(windows)
        self.rows = rows
        self.places = places
        self.length = 0
        self.row_A1 = torch.empty(0, 1, dtype=torch.long)
        self.place_AT = self.row_A1

    def forward(
        self,
        ids_AT: Tensor,
        start_A: Tensor,
        end: int,
        rows_A: Tensor | None = None,
        **options: Any,
    ) -> Any:
        """Run new tokens through the model. Row i's tokens lie at the places from `start_A[i]` on;
        no place is after `end`. `rows_A` are the rows that take part (None: all). What a row has
        at places after its last new token is not read, and may be overwritten later.
        """
        device = ids_AT.device
        if end > self.places:
            more = max(end - self.places, MORE_PLACES, self.places // 2)
            self.places += more
            for layer in self.layers:
                layer.grow(more)  # pyright: ignore[reportAttributeAccessIssue]
        self.length = padded(end) if padded(end) <= self.places else end
        rows_A = torch.arange(self.rows, device=device) if rows_A is None else rows_A
        self.row_A1 = rows_A[:, None]
        self.place_AT = start_A[:, None] + torch.arange(ids_AT.shape[1], device=device)
        place_L = torch.arange(self.length, device=device)
        masks: dict[int, Tensor] = {}
        for window in self.windows:
            hidden_ATL = place_L > self.place_AT[..., None]
            if window:
                hidden_ATL |= place_L <= self.place_AT[..., None] - window
            mask_ATL = torch.zeros(hidden_ATL.shape, dtype=self.model.dtype, device=device)
            lowest = torch.finfo(self.model.dtype).min
            masks[window] = mask_ATL.masked_fill_(hidden_ATL, lowest)[:, None]
        mask: Any = masks[self.windows[0]]
        if len(masks) > 1:
            mask = {
                "full_attention": masks[0],
                "sliding_attention": masks[self.windows[-1]],
            }
        return self.model(
            input_ids=ids_AT,
            attention_mask=mask,
            position_ids=self.place_AT,
            past_key_values=self,
            use_cache=True,
            **options,
        )

    def take(self, row_R: Tensor) -> None:
        """Replace the rows by the rows `row_R`, which may repeat."""
        self.rows = len(row_R)
        for layer in self.layers:
            layer.take(row_R)  # pyright: ignore[reportAttributeAccessIssue]


def has_equal_bits(model: Any) -> bool:
    """Whether on this machine, a token that is decoded alone has the same keys and logits, to the
    last bit, as one in a prefill."""
    vocabulary = model.get_input_embeddings().weight.shape[0]
    ids_T = torch.arange(2 * BLOCK, device=model.device) * 7919 % vocabulary
    start_R = torch.zeros(BLOCK, dtype=torch.long, device=model.device)
    with torch.inference_mode(), row_attention(model):
        whole = RowCache(model, 1, 2 * BLOCK)
        prefilled_TV = whole.forward(ids_T[None], start_R[:1], 2 * BLOCK).logits[0]
        parts = RowCache(model, BLOCK, 2 * BLOCK)
        half_RT = ids_T[None, :BLOCK].expand(BLOCK, -1)
        parts.forward(half_RT, start_R, BLOCK)
        for place in (BLOCK, BLOCK + 1):
            decoded_RV = parts.forward(
                ids_T[place].expand(BLOCK, 1), start_R + place, place + 1
            ).logits[:, -1]
            if not torch.equal(decoded_RV[-1], prefilled_TV[place]):
                return False
    return True
