"""The launcher configs, read by accelerate's own class."""

from __future__ import annotations

from pathlib import Path

import pytest
from accelerate.commands.config.config_args import ClusterConfig, load_config_from_file
from accelerate.utils import DistributedType

FOLDER = Path(__file__).resolve().parents[4] / "recipes" / "accelerate"
# name: kind of launch, ZeRO stage, processes, CPU
EXPECTED = {
    "cpu": (DistributedType.NO, None, 1, True),
    "cpu_ddp": (DistributedType.MULTI_GPU, None, 2, True),
    "cpu_zero2": (DistributedType.DEEPSPEED, 2, 2, True),
    "cpu_zero3": (DistributedType.DEEPSPEED, 3, 2, True),
    "gpu": (DistributedType.NO, None, 1, False),
    "ddp": (DistributedType.MULTI_GPU, None, 8, False),
    "zero2": (DistributedType.DEEPSPEED, 2, 8, False),
    "zero3": (DistributedType.DEEPSPEED, 3, 8, False),
    "zero3_offload": (DistributedType.DEEPSPEED, 3, 8, False),
    "multi_node": (DistributedType.DEEPSPEED, 3, 16, False),
}


def test_all_are_known() -> None:
    assert {path.stem for path in FOLDER.iterdir()} == set(EXPECTED)


@pytest.mark.parametrize("name", EXPECTED)
def test_accelerate_reads_it(name: str) -> None:
    config = load_config_from_file(str(FOLDER / f"{name}.yaml"))  # refuses unknown keys
    assert isinstance(config, ClusterConfig)
    deepspeed = config.deepspeed_config or {}
    stage = deepspeed.get("zero_stage")
    found = (config.distributed_type, stage, config.num_processes, config.use_cpu)
    assert found == EXPECTED[name]
    assert config.num_machines == (2 if name == "multi_node" else 1)
    assert config.mixed_precision == ("no" if config.use_cpu else "bf16")
    if deepspeed:
        # `deepspeed`'s own multi-node launcher needs ssh; sharded weights are saved in one piece.
        assert deepspeed["deepspeed_multinode_launcher"] == "standard"
        assert deepspeed["zero3_init_flag"] == deepspeed["zero3_save_16bit_model"] == (stage == 3)
        offload = {deepspeed["offload_optimizer_device"], deepspeed["offload_param_device"]}
        assert offload == {"cpu" if name == "zero3_offload" else "none"}
