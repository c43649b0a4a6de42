"""Tiny random models and tokenizers as published reward models have them, written as folders."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
import uvicorn
from safetensors.torch import save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen2ForSequenceClassification,
    Qwen2ForTokenClassification,
)

from data.types import SteppedSolution
from rewards.server.app import build_app
from rewards.server.batching import BatchingConfig
from rewards.server.scoring import ServedModel

SIZES: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
    "initializer_range": 0.3,
}
TEXTS = [
    "Step 1: Add 3 and 4. 3 + 4 = 7 ки\nStep 2: 7 * 2 = 14 ки\nThe answer is - 14. ки",
    "What is 3 + 4, doubled? user assistant system Please reason step by step",
] * 3
CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
LLAMA_CHAT = (
    "<|begin_of_text|>{% for m in messages %}<|start_header_id|>{{ m.role }}<|end_header_id|>\n\n"
    "{{ m.content | trim }}<|eot_id|>{% endfor %}"
    "{% if add_generation_prompt %}<|start_header_id|>assistant<|end_header_id|>\n\n{% endif %}"
)


def byte_tokenizer(special: list[str], **named: Any) -> PreTrainedTokenizerFast:
    """Byte pairs on bytes, as Qwen2 and Llama 3 have them."""
    tokenizer: Any = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer: Any = trainers.BpeTrainer(
        vocab_size=330, special_tokens=special, initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(TEXTS, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, clean_up_tokenization_spaces=False, **named
    )


def qwen_tokenizer() -> PreTrainedTokenizerFast:
    tokens = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<extra_0>"]
    tokenizer = byte_tokenizer(
        tokens, bos_token=tokens[0], pad_token=tokens[0], eos_token=tokens[2]
    )
    tokenizer.chat_template = CHATML
    return tokenizer


def llama_tokenizer() -> PreTrainedTokenizerFast:
    tokens = ["<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"]
    tokenizer = byte_tokenizer(tokens, bos_token=tokens[0], eos_token=tokens[3])
    tokenizer.chat_template = LLAMA_CHAT
    return tokenizer


def mistral_tokenizer() -> PreTrainedTokenizerFast:
    """Words that begin with a mark for the space before them, bytes where there is no piece, and a
    beginning-of-sequence token that the tokenizer adds itself."""
    special = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    tokenizer: Any = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    )
    trainer: Any = trainers.BpeTrainer(vocab_size=420, special_tokens=special, show_progress=False)
    splitting = Tokenizer(models.BPE())
    splitting.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split("\n", "removed"), pre_tokenizers.Metaspace(prepend_scheme="always")]
    )
    splitting.train_from_iterator([*TEXTS, "+ - ки " * 9], trainer)
    pieces = json.loads(splitting.to_str())["model"]
    merges = [tuple(pair) for pair in pieces["merges"]]
    tokenizer.model = models.BPE(
        vocab=pieces["vocab"], merges=merges, unk_token="<unk>", byte_fallback=True, fuse_unk=True
    )
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", pieces["vocab"]["<s>"])]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", unk_token="<unk>"
    )


def write_published(folder: Path, architecture: str, extra: dict[str, torch.Tensor]) -> None:
    """A Qwen2 model's weights with a head of its own, as the hub has them: with the code's address
    in the config, and with an output head that is not used."""
    torch.manual_seed(5)
    tokenizer = qwen_tokenizer()
    config = Qwen2Config(vocab_size=len(tokenizer), **SIZES)
    state = {k: v.contiguous() for k, v in Qwen2ForCausalLM(config).state_dict().items()}
    folder.mkdir()
    save_file(state | extra, folder / "model.safetensors", metadata={"format": "pt"})
    fields = config.to_dict() | {
        "architectures": [architecture],
        "auto_map": {"AutoModel": f"modeling_qwen2_rm.{architecture}"},
        "torch_dtype": "float32",
    }
    for key in ("id2label", "label2id", "num_labels"):
        fields.pop(key, None)
    (folder / "config.json").write_text(json.dumps(fields))
    tokenizer.save_pretrained(folder)


@pytest.fixture(scope="session")
def published(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A folder for each convention."""
    root = tmp_path_factory.mktemp("published")
    folders = {
        name: root / name
        for name in (
            "qwen_math_prm", "skywork", "math_shepherd", "rlhflow", "trl", "outcome", "reference"
        )
    }  # fmt: skip
    generator = torch.Generator().manual_seed(9)

    def random(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator) * 0.3

    head = {
        "score.0.weight": random(32, 32),
        "score.0.bias": random(32),
        "score.2.weight": random(2, 32),
        "score.2.bias": random(2),
    }
    write_published(folders["qwen_math_prm"], "Qwen2ForProcessRewardModel", head)
    value = {"v_head.summary.weight": random(1, 32), "v_head.summary.bias": random(1)}
    write_published(folders["skywork"], "Qwen2ForPrmModel", value)
    torch.manual_seed(6)
    tokenizer = mistral_tokenizer()
    MistralForCausalLM(MistralConfig(vocab_size=len(tokenizer), **SIZES)).save_pretrained(
        folders["math_shepherd"]
    )
    tokenizer.save_pretrained(folders["math_shepherd"])
    for name in ("rlhflow", "reference"):
        tokenizer = llama_tokenizer()
        LlamaForCausalLM(LlamaConfig(vocab_size=len(tokenizer), **SIZES)).save_pretrained(
            folders[name]
        )
        tokenizer.save_pretrained(folders[name])
    tokenizer = qwen_tokenizer()
    config = {"vocab_size": len(tokenizer), "pad_token_id": 0, **SIZES}
    Qwen2ForTokenClassification(Qwen2Config(num_labels=2, **config)).save_pretrained(folders["trl"])
    tokenizer.save_pretrained(folders["trl"])
    Qwen2ForSequenceClassification(Qwen2Config(num_labels=1, **config)).save_pretrained(
        folders["outcome"]
    )
    tokenizer.chat_template = None
    tokenizer.save_pretrained(folders["outcome"])
    return folders


@pytest.fixture(scope="session")
def solution() -> SteppedSolution:
    return SteppedSolution(
        prompt="What is 3 + 4, doubled?\n",
        steps=("Add 3 and 4. 3 + 4 = 7\n", "7 * 2 = 14\n", "The answer is 14."),
    )


@contextmanager
def serving(
    load: Callable[[], ServedModel], *, port: int = 0, **batching: Any
) -> Iterator[tuple[str, list[BaseException]]]:
    """A real server in a thread: its address, and what ended it."""
    ended: list[BaseException] = []
    app = build_app(load, BatchingConfig(**batching), ended.append)
    with socket.create_server(("127.0.0.1", port)) as listening:
        server = uvicorn.Server(uvicorn.Config(app, log_level="error", timeout_graceful_shutdown=1))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        try:
            yield f"http://127.0.0.1:{listening.getsockname()[1]}", ended
        finally:
            server.should_exit = True
            thread.join()


@pytest.fixture(scope="session")
def serve() -> Callable[..., Any]:
    return serving
