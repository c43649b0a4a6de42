"""What identifies a reward model, however it is named: its content, not its address.

Two that have one fingerprint score alike on one kind of machine; a server is asked for the
fingerprint of what it serves.
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
    """sha256, in hex, of a folder's files, of a hub id and its commit, or of a description's
    settings and what it names. Waits for a server (`ServerConfig.wait_seconds`)."""
    return hash_value(_contents(reward_model))


def identity_of(source: str | Path) -> dict[str, str]:
    """What identifies a stage's input: as `hash_input`, but a reward model that is described or
    served by its content, which may change behind one file or address."""
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
        # A judge's model is a name that only its server knows.
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
