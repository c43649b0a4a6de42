"""Tokens per second: our decode loop beside `generate` of transformers, on the same prompts.

OMP_NUM_THREADS=1 python tests/benchmarks/engine_decode.py [--rows 1 16 64] [--profile]

The model has the shape of SmolLM2-135M (30 layers of 576, vocabulary 49,152) and random weights.
Both sides sample the same number of tokens from the whole vocabulary, in turn in one process, and
the best of the repeats counts. A random model never ends a solution in practice, so both sides
decode the same number of tokens.
"""

from __future__ import annotations

import argparse
import time
from typing import Any

import torch
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from search.base import SampleRequest
from search.engines.transformers_engine import EngineConfig, TransformersEngine

SHAPE = {
    "hidden_size": 576,
    "intermediate_size": 1536,
    "num_hidden_layers": 30,
    "num_attention_heads": 9,
    "num_key_value_heads": 3,
    "vocab_size": 49152,
    "max_position_embeddings": 2048,
    "tie_word_embeddings": True,
    "bos_token_id": 1,
    "eos_token_id": 2,
}


def tokenizer_of_words(size: int) -> PreTrainedTokenizerFast:
    from tokenizers import Tokenizer, models, pre_tokenizers

    words = Tokenizer(models.WordLevel({f"w{i}": i for i in range(size)}, unk_token="w0"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(
        tokenizer_object=words, bos_token="w1", eos_token="w2", unk_token="w0", pad_token="w2"
    )


def sample_ours(engine: TransformersEngine, prompt: list[int], rows: int, new: int) -> int:
    request = SampleRequest(
        node=0, prefix=tuple(prompt), n=rows, stop_at_step=False, max_new_tokens=new
    )
    [result] = engine.sample_batch([("p", request)])
    return result.usage.generated_tokens


def sample_theirs(model: Any, prompt: list[int], rows: int, new: int) -> int:
    ids = torch.tensor([prompt])
    made = model.generate(
        input_ids=ids,
        attention_mask=torch.ones_like(ids),
        do_sample=True,
        top_k=0,
        max_new_tokens=new,
        num_return_sequences=rows,
        pad_token_id=2,
    )[:, len(prompt) :]
    ended = torch.cumsum((made == 2).long(), dim=1)
    return int(((ended == 0) | ((made == 2) & (ended == 1))).sum())


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=int, nargs="+", default=[1, 16, 64])
    parser.add_argument("--new", type=int, default=24, help="new tokens per sample")
    parser.add_argument("--prompt", type=int, default=48, help="tokens of the prompt")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--profile", action="store_true", help="where the time of ours goes")
    options = parser.parse_args()
    dtype = getattr(torch, options.dtype)
    torch.manual_seed(1)
    ours = LlamaForCausalLM(LlamaConfig(**SHAPE)).to(dtype).eval()
    with torch.no_grad():  # as peaked as a trained model's distributions, about
        ours.get_input_embeddings().weight *= 12
    theirs = LlamaForCausalLM(LlamaConfig(**SHAPE)).to(dtype).eval()
    theirs.load_state_dict(ours.state_dict())
    config = EngineConfig(seed=1, bit_identical=False)
    engine = TransformersEngine(ours, tokenizer_of_words(SHAPE["vocab_size"]), config)
    prompt = torch.randint(3, SHAPE["vocab_size"], (options.prompt,)).tolist()
    if options.profile:
        for rows in options.rows:
            sample_ours(engine, prompt, rows, 2)
            with torch.profiler.profile() as profile:
                sample_ours(engine, prompt, rows, options.new)
            print(profile.key_averages().table(sort_by="self_cpu_time_total", row_limit=22))
        return
    # With one thread, CPU seconds: other programs disturb them less than wall seconds.
    clock = time.process_time if torch.get_num_threads() == 1 else time.perf_counter
    print(f"{torch.get_num_threads()} threads, {options.dtype}, tokens per {clock.__name__} second")
    for rows in options.rows:
        speeds: dict[str, list[float]] = {"ours": [], "generate": []}
        for repeat in range(options.repeats + 1):
            for side in speeds:
                new = options.new if repeat else 2
                started = clock()
                if side == "ours":
                    tokens = sample_ours(engine, prompt, rows, new)
                else:
                    tokens = sample_theirs(theirs, prompt, rows, new)
                if repeat:  # the first one warms up
                    speeds[side].append(tokens / (clock() - started))
        best = {side: max(values) for side, values in speeds.items()}
        print(
            f"{rows:>3} samples: ours {best['ours']:.1f}, generate {best['generate']:.1f}, "
            f"ratio {best['ours'] / best['generate']:.2f}   {speeds}",
            flush=True,
        )


if __name__ == "__main__":
    main()
