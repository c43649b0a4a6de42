"""Servers that are named on the command line, W&B, and the Hugging Face hub."""

from __future__ import annotations

import importlib.util
import json
import os
import urllib.error
import urllib.request
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from trainer.runtime.doctor.findings import Finding, limited, missing, ok
from trainer.runtime.tracking import wandb_mode

SECONDS = 5.0  # to wait for an answer
OFF = ("1", "ON", "YES", "TRUE")  # huggingface_hub's words for HF_HUB_OFFLINE


def check_server(address: str) -> Finding:
    """A scoring server says its reward model at /health; an OpenAI-compatible server (vLLM, or
    this project's) says its models at /v1/models."""
    name = f"server {address}"
    start = "start it, or correct the address: http://HOST:PORT"
    if urlsplit(address).scheme not in ("http", "https") or not urlsplit(address).hostname:
        return missing(name, "is no address", start)
    base = address.rstrip("/").removesuffix("/v1")
    health = _asked(f"{base}/health")
    if isinstance(health, str) and not health.startswith("status "):
        return missing(name, f"does not answer: {health}", start)
    if isinstance(health, dict) and "reward_model" in health:
        return ok(name, f"scores with the reward model {health['reward_model']}")
    if health == "status 503":
        return missing(name, "is loading its model", "wait, and try again")
    models = _asked(f"{base}/v1/models")
    if models in ("status 401", "status 403"):
        return ok(name, "answers, and asks for an API key")
    names = _model_names(models)
    if names is None:
        return missing(
            name,
            "answers, but is neither a scoring server (GET /health) nor an OpenAI-compatible one "
            "(GET /v1/models)",
            start,
        )
    return ok(name, f"serves {', '.join(names) or 'no model'}")


def _model_names(body: Any) -> list[str] | None:
    rows = body.get("data") if isinstance(body, dict) else None
    if not isinstance(rows, list) or not all(isinstance(r, dict) and "id" in r for r in rows):
        return None
    return [str(row["id"]) for row in rows]


def check_wandb() -> Finding:
    if importlib.util.find_spec("wandb") is None:
        return limited("W&B", "is not installed: runs are not tracked", "run make setup")
    mode = wandb_mode()
    if mode == "disabled":
        return ok("W&B", "off (WANDB_MODE=disabled)")
    if mode != "online":
        why = "WANDB_MODE" if os.environ.get("WANDB_MODE") else "nobody is logged in"
        return ok("W&B", f"{mode} ({why}): each stage keeps its run in its folder")
    base = os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai")
    answer = _asked(base)
    if isinstance(answer, str) and not answer.startswith("status "):
        return limited("W&B", f"online, but {base} does not answer: {answer}", "WANDB_MODE=offline")
    return ok("W&B", f"online at {base}")


def check_hub(environment: Mapping[str, str]) -> Finding:
    """The hub is not needed where models and data are folders, so this is never a failure."""
    if environment.get("HF_HUB_OFFLINE", "").upper() in OFF:
        return ok("hub", "off (HF_HUB_OFFLINE): models and data come from folders and the cache")
    base = environment.get("HF_ENDPOINT", "https://huggingface.co")
    answer = _asked(base)
    if isinstance(answer, str) and not answer.startswith("status "):
        return limited(
            "hub",
            f"offline: {base} does not answer: {answer}",
            "give models and data as local folders, and set HF_HUB_OFFLINE=1",
        )
    return ok("hub", f"{base} answers")


def _asked(address: str) -> Any:
    """The JSON that the address answers with; "status N" for an answer that is none; else why there
    is no answer."""
    request = urllib.request.Request(address, headers={"User-Agent": "thinktree-doctor"})
    try:
        with urllib.request.urlopen(request, timeout=SECONDS) as response:
            body, status = response.read(1 << 20), response.status
    except urllib.error.HTTPError as error:
        return f"status {error.code}"
    except (OSError, ValueError) as error:
        return str(getattr(error, "reason", error)) or type(error).__name__
    try:
        return json.loads(body)
    except ValueError:
        return f"status {status}"
