"""DeepSpeed for PPO. Under ZeRO-3 each process holds a part of the parameters. These functions
gather the parameters where all of them are needed at once. Without ZeRO-3 they do nothing.

Entering and leaving `whole` and `generating`, and `prepare_frozen`, are collective: every process
must take part, or all processes wait for ever.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any


def zero_stage(accelerator: Any) -> int:
    """The stage of ZeRO; 0 without DeepSpeed."""
    plugin = accelerator.state.deepspeed_plugin
    return 0 if plugin is None else plugin.zero_stage


def open_accelerator(
    *, micro_steps: int, micro_batch_size: int, max_grad_norm: float, bf16: bool
) -> Any:
    """An Accelerator whose optimizer steps have `micro_steps` micro-batches. With `bf16` false, the
    launcher's config decides the precision."""
    from accelerate import Accelerator
    from accelerate.utils import GradientAccumulationPlugin

    # This must be a plugin: under DeepSpeed the launcher's environment overrides a plain number.
    accumulation = GradientAccumulationPlugin(num_steps=micro_steps)
    accelerator = Accelerator(
        gradient_accumulation_plugin=accumulation, mixed_precision="bf16" if bf16 else None
    )
    if accelerator.state.deepspeed_plugin is not None:
        accelerator.state.deepspeed_plugin.deepspeed_config.update(
            gradient_accumulation_steps=micro_steps,
            train_micro_batch_size_per_gpu=micro_batch_size,
            train_batch_size="auto",
            gradient_clipping=max_grad_norm,
        )
    return accelerator


@contextmanager
def whole(parameters: Iterable[Any]) -> Iterator[None]:
    """A context in which these parameters are complete on every process, for reading."""
    parts = [parameter for parameter in parameters if hasattr(parameter, "ds_id")]
    if not parts:
        yield
        return
    import deepspeed

    with deepspeed.zero.GatheredParameters(parts):
        yield


@contextmanager
def generating(model: Any, policy: Any, accelerator: Any) -> Iterator[None]:
    """A context in which the processes sample independently from `policy`, a part of the prepared
    `model`. Under ZeRO-3 the policy's parameters are gathered once. Inside the context the hooks
    that fetch and free them with every forward pass are removed."""
    with accelerator.autocast():
        if zero_stage(accelerator) != 3:
            yield
            return
        from trl.models.utils import add_hooks, remove_hooks

        with whole(policy.parameters()):
            remove_hooks(model)
            yield
            add_hooks(model)


def prepare_frozen(model: Any, accelerator: Any) -> Any:
    """Prepares a model that is not trained: it gets the device and the precision of training. Under
    ZeRO-3 its parameters are divided among the processes like those of trained models."""
    from trl.models.utils import prepare_deepspeed

    model.eval().requires_grad_(False)
    if accelerator.state.deepspeed_plugin is None:
        return model.to(accelerator.device)
    return prepare_deepspeed(model, accelerator)
