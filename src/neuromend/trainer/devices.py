"""Lightning Fabric as the loop wants it: which processes, which precision, who wraps the network."""

from __future__ import annotations

import os
from typing import Any, Literal

import torch
from lightning_fabric import Fabric
from lightning_fabric.plugins.precision import MixedPrecision
from lightning_fabric.strategies.ddp import DDPStrategy
from lightning_fabric.strategies.model_parallel import ModelParallelStrategy
from torch import nn

from neuromend.errors import UsageError
from neuromend.trainer.config import RunConfig, Running


class Autocast(MixedPrecision):
    """Fabric's mixed precision without its rounding of a step's inputs: targets and masks stay float32."""

    def convert_input(self, data: Any) -> Any:
        """The data as they are."""
        return data


def make_fabric(config: RunConfig) -> Fabric:
    """Fabric for one process or many; under torchrun or SLURM the layout is theirs.

    Raises:
        UsageError: TR-21, a precision or a strategy that this hardware cannot do.
    """
    running, training = config.running, config.training
    accelerator = running.device
    if accelerator == "auto":
        accelerator = "cuda" if torch.cuda.is_available() else "cpu"
    if accelerator == "cuda" and not torch.cuda.is_available():
        raise _refused("running.device is cuda, but PyTorch sees no GPU", "--set device=auto")
    if training.precision == "fp16" and accelerator == "mps":
        raise _refused(
            "training.precision is fp16, which is offered on CUDA GPUs and CPUs; this run is on mps",
            "--set precision=fp32",
        )
    devices, nodes = _layout(running, accelerator)
    plugin = None
    if training.precision != "fp32":
        scaler = torch.amp.GradScaler(accelerator) if training.precision == "fp16" else None
        name: Literal["16-mixed", "bf16-mixed"] = "16-mixed" if training.precision == "fp16" else "bf16-mixed"
        plugin = Autocast(name, accelerator, scaler)
    return Fabric(
        accelerator=accelerator,
        devices=devices,
        num_nodes=nodes,
        strategy=_strategy(config, devices * nodes),
        precision=None if plugin else "32-true",
        plugins=[plugin] if plugin else None,
    )


def scaler_of(fabric: Fabric) -> Any:
    """The scaler of fp16 losses, or None."""
    return getattr(fabric.strategy.precision, "scaler", None)


def _strategy(config: RunConfig, world: int) -> Any:
    wanted = config.running.strategy
    if wanted == "fsdp":
        if config.stage == "autoencoder" or config.training.precision == "fp16":
            raise _refused(
                "running.strategy is fsdp, which is not offered for the autoencoder or for fp16",
                "--set strategy=ddp",
            )
        return ModelParallelStrategy(parallelize_fn=_shard, data_parallel_size=world, tensor_parallel_size=1)
    if wanted == "ddp" or world > 1:
        # Until its judges are heard, the autoencoder trains a part of its weights only.
        return DDPStrategy(find_unused_parameters=config.stage == "autoencoder")
    return "auto"


def _shard(network: nn.Module, mesh: Any) -> nn.Module:
    """Spread the weights of every large part over the processes (FSDP2)."""
    from torch.distributed.fsdp import fully_shard

    for parameter in network.parameters():
        parameter.data = parameter.data.contiguous()  # FSDP takes no channels-last weights
    for part in network.modules():
        if isinstance(part, nn.ModuleList):
            for block in part:
                fully_shard(block, mesh=mesh["data_parallel"])
    whole: nn.Module = fully_shard(network, mesh=mesh["data_parallel"])  # type: ignore[assignment]
    return whole


def _layout(running: Running, accelerator: str) -> tuple[int, int]:
    """(processes on a node, nodes)."""
    world, local = os.environ.get("WORLD_SIZE"), os.environ.get("LOCAL_WORLD_SIZE")
    if "TORCHELASTIC_RUN_ID" in os.environ and world and local:
        return int(local), int(world) // int(local)
    if running.devices:
        return running.devices, running.nodes
    tasks = os.environ.get("SLURM_NTASKS_PER_NODE")
    if tasks and "SLURM_PROCID" in os.environ:
        return int(tasks), int(os.environ.get("SLURM_NNODES", "1"))
    return (torch.cuda.device_count() if accelerator == "cuda" else 1), running.nodes


def _refused(what: str, fix: str) -> UsageError:
    return UsageError("TR-21", what, why="nothing was trained", fix=fix)


def share_average(average: nn.Module, fabric: Fabric) -> nn.Module:
    """Spread an average over the processes as the weights are."""
    fabric.setup_module(average)
    return average
