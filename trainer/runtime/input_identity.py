"""The identity of a reward model is its content, not its name or address.

Two reward models with the same fingerprint give the same scores on one kind of machine. A server
reports the fingerprint of the model that it serves.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from data.settings import read_yaml_mapping
from rewards.server.client import ScoringClient, ServerConfig, is_address
from trainer.runtime.manifests import hash_input, hash_outputs, hash_value

DESCRIBED = (".yaml", ".yml")
NAMES = ("model", "reference")  # keys of a description that name a model


def fingerprint_of(reward_model: str) -> str:
    """sha256 in hex: of a folder's files, of a hub id and its commit, or of a description's
    settings and the models that it names. Waits for a server (`ServerConfig.wait_seconds`)."""
    return hash_value(_contents(reward_model))


def identity_of(source: str | Path) -> dict[str, str]:
    """The identity of a stage's input, like `hash_input`. A reward model behind a description or a
    server is identified by its content, because the content may change behind the same file or
    address."""
    if is_address(str(source)) or str(source).endswith(DESCRIBED):
        return {"fingerprint": fingerprint_of(str(source))}
    return hash_input(source)


def _contents(name: str) -> Any:
    if is_address(name):
        return {"server": ScoringClient(ServerConfig(server=name)).description.fingerprint}
    if name.endswith(DESCRIBED):
        settings = read_yaml_mapping(Path(name))
        if settings.get("convention") == "server":
            settings["server"] = _contents(str(settings.get("server")))
        elif settings.get("convention") == "vllm":
            settings.pop("server", None)  # any server with the model of this description
        # The model of a judge is a name that only the judge's server knows.
        own = NAMES if settings.get("convention") != "judge" else ()
        settings |= {key: _contents(str(settings[key])) for key in own if key in settings}
        if isinstance(settings.get("members"), list):
            settings["members"] = [_contents(str(member)) for member in settings["members"]]
        return settings
    if Path(name).is_dir():
        return hash_outputs(Path(name))
    return {"name": name, "commit": _commit(name)}


def _commit(hub_id: str) -> str | None:
    from transformers import AutoConfig

    config: Any = AutoConfig.from_pretrained(hub_id, trust_remote_code=False)
    return config._commit_hash
