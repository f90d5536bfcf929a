"""What a run has reached: all that a checkpoint holds, and all that a resumed run goes on from.

The random numbers of step n come from seeds made of (seed, n), see trainer/feeding.py; so the position of the run is
the state of every generator and of the order of the data.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor, distribute_tensor

from neuromend.errors import CheckpointError, ModelFaultError
from neuromend.trainer.config import Training
from neuromend.trainer.tasks import AutoencoderTask, MethodTask

EMA_RAMP = 20
"""The average of a young run forgets fast: its decay is at most (1 + step) / (EMA_RAMP + step)."""


@dataclass
class Progress:
    """Where a run stands.

    Attributes:
        step: batches seen, an optimiser step each unless it was skipped.
        seconds: training time over all processes that worked on this run one after another.
        loss: running mean. best: highest score on dev so far ("higher is better" made of it).
        skipped: steps that were not finite; in_a_row: how many of them are the latest.
        left_out: cases that could not be read.
        log_bytes: length of log.jsonl when this was written.
        scored_at: step of the latest score on dev; scores: by name.
    """

    step: int = 0
    seconds: float = 0.0
    loss: float | None = None
    best: float = -math.inf
    skipped: int = 0
    in_a_row: int = 0
    left_out: int = 0
    log_bytes: int = 0
    scored_at: int = -1
    scores: dict[str, float] = field(default_factory=dict)

    def share(self, training: Training) -> float:
        """How much of the budget is used up."""
        if training.steps is not None:
            return self.step / training.steps
        return self.seconds / (60 * (training.minutes or math.inf))


@dataclass(eq=False)
class RunState:
    """The moving parts.

    Attributes:
        task: the weights that learn.
        ema: the average of ``task.averaged``, in evaluation mode.
        optimisers: one for each of ``task.networks``.
        scaler: of fp16 losses, or None.
    """

    task: MethodTask | AutoencoderTask
    ema: nn.Module
    optimisers: list[torch.optim.Optimizer]
    scaler: Any = None
    progress: Progress = field(default_factory=Progress)

    @classmethod
    def begin(cls, task: MethodTask | AutoencoderTask, training: Training) -> RunState:
        """A run at step 0."""
        return cls(task, average_of(task.averaged), [make_optimiser(net, training) for net in task.networks])

    def content(self) -> dict[str, Any]:
        """Everything, for a checkpoint. Raises ModelFaultError (TR-01) if a weight is not finite."""
        content = {
            "task": whole(self.task.state_dict()),
            "ema": whole(self.ema.state_dict()),
            "optimisers": [whole(optimiser.state_dict()) for optimiser in self.optimisers],
            "scaler": {} if self.scaler is None else self.scaler.state_dict(),
            "progress": asdict(self.progress),
        }
        for name, tensor in _tensors(content):
            if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
                raise ModelFaultError(
                    "TR-01",
                    f"{name} is not finite at step {self.progress.step}; no checkpoint was written",
                    why="training cannot recover from such a weight, and neither can a resumed run",
                    fix="resume from checkpoints/good.pt with a smaller peak_lr: see docs/how-to/train.md",
                )
        return content

    def whole_average(self, device: torch.device) -> nn.Module:
        """The average as one network; where it is spread over processes, a copy that all must make together."""
        if not any(isinstance(parameter, DTensor) for parameter in self.ema.parameters()):
            return self.ema
        kind: Any = type(self.task.averaged)
        original = next(base for base in kind.__mro__ if not base.__name__.startswith("FSDP"))
        network: nn.Module = original(self.task.averaged.config).to(device).requires_grad_(False).eval()
        network.load_state_dict(whole(self.ema.state_dict()))
        return network

    def restore(self, content: Mapping[str, Any]) -> None:
        """Go on from what :meth:`content` returned.

        Raises:
            CheckpointError: TR-05, it belongs to another network.
        """
        try:
            self.task.load_state_dict(alike(content["task"], self.task.state_dict()))
            self.ema.load_state_dict(alike(content["ema"], self.ema.state_dict()))
            for optimiser, state in zip(self.optimisers, content["optimisers"], strict=True):
                weights = [p for group in optimiser.param_groups for p in group["params"]]
                parts = {i: alike(values, weights[i]) for i, values in state["state"].items()}
                optimiser.load_state_dict({**state, "state": parts})
        except (RuntimeError, ValueError, KeyError) as error:
            raise CheckpointError(
                "TR-05",
                f"the checkpoint does not fit this network ({str(error).splitlines()[0]})",
                why="a run can only go on with the network it began with",
                fix="give the options of the run, or another --out",
            ) from error
        if self.scaler is not None and content["scaler"]:
            self.scaler.load_state_dict(content["scaler"])
        self.progress = Progress(**content["progress"])

    def clip(self, training: Training) -> list[float]:
        """Clip the gradient of each optimiser; their norms before that (0 for a network that has none yet)."""
        norms = []
        for optimiser in self._active():
            if self.scaler is not None:
                self.scaler.unscale_(optimiser)
            parameters = [p for group in optimiser.param_groups for p in group["params"]]
            norm = nn.utils.clip_grad_norm_(parameters, training.clip or math.inf)
            norms.append(float(whole(norm)))
        return norms or [0.0]

    def step(self, rate: float, training: Training, *, loss: float, norm: float) -> bool:
        """Let the optimisers and the average step if loss and gradient are finite; True where they did."""
        finite = math.isfinite(loss) and math.isfinite(norm)
        if finite:
            for optimiser in self._active():
                for group in optimiser.param_groups:
                    group["lr"] = rate
                optimiser.step()
        smaller = False
        if self.scaler is not None:
            before = self.scaler.get_scale()
            self.scaler.update()  # by what it saw when the gradients were unscaled for clipping
            smaller = self.scaler.get_scale() < before
        for optimiser in self.optimisers:
            optimiser.zero_grad(set_to_none=True)
        if finite:
            self.average(training)
            self.progress.in_a_row = 0
            return True
        self.progress.skipped += 1
        # A gradient that overflows in fp16 is in order: the scale is halved until it fits.
        if not (smaller and math.isfinite(loss)):
            self.progress.in_a_row += 1
        return False

    def _active(self) -> list[torch.optim.Optimizer]:
        """The optimisers that have a gradient: the judges of the autoencoder join later."""
        return [
            optimiser
            for optimiser in self.optimisers
            if any(p.grad is not None for group in optimiser.param_groups for p in group["params"])
        ]

    @torch.no_grad()
    def average(self, training: Training) -> None:
        """Move the average towards the weights; counters and codes that are not weights are copied."""
        step = self.progress.step
        decay = min(training.ema_decay, (1 + step) / (EMA_RAMP + step))
        for mean, value in zip(
            self.ema.state_dict().values(), self.task.averaged.state_dict().values(), strict=True
        ):
            if mean.is_floating_point():
                mean.lerp_(value, 1 - decay)
            else:
                mean.copy_(value)


def whole(content: Any) -> Any:
    """The content with every tensor that is spread over processes (FSDP) gathered; a part that all must take."""
    if isinstance(content, DTensor):
        return content.full_tensor()
    if isinstance(content, Mapping):
        return {key: whole(value) for key, value in content.items()}
    return [whole(value) for value in content] if isinstance(content, list) else content


def alike(content: Mapping[str, Any], like: Mapping[str, Any] | Tensor) -> dict[str, Any]:
    """Tensors spread over the processes as those of the same name, or as one tensor, are; the inverse of ``whole``."""

    def spread(name: str, value: Any) -> Any:
        model = like.get(name) if isinstance(like, Mapping) else like
        if not (isinstance(model, DTensor) and isinstance(value, Tensor) and value.shape == model.shape):
            return value
        return distribute_tensor(value.to(model.device), model.device_mesh, model.placements)

    return {name: spread(name, value) for name, value in content.items()}


def average_of(network: nn.Module) -> nn.Module:
    """A copy that is sampled from and never trained."""
    return copy.deepcopy(network).requires_grad_(False).eval()


def make_optimiser(network: nn.Module, training: Training) -> torch.optim.Optimizer:
    """The optimiser of one network."""
    kind = torch.optim.AdamW if training.optimiser == "adamw" else torch.optim.Adam
    return kind(
        network.parameters(),
        lr=training.peak_lr,
        betas=training.betas,
        weight_decay=training.weight_decay,
        fused=True,
    )


def learning_rate(training: Training, step: int, share: float) -> float:
    """Linear warm-up, then the schedule over the ``share`` of the budget that is used up."""
    warm = min(1.0, (step + 1) / training.warm_up_steps) if training.warm_up_steps else 1.0
    if training.schedule == "constant":
        return training.peak_lr * warm
    cosine = 0.5 * (1 + math.cos(math.pi * min(1.0, share)))
    return training.peak_lr * warm * (training.final_share + (1 - training.final_share) * cosine)


def _tensors(content: Any, name: str = "") -> Iterator[tuple[str, Tensor]]:
    if isinstance(content, Tensor):
        yield name, content
    elif isinstance(content, Mapping):
        for key, value in content.items():
            yield from _tensors(value, f"{name}.{key}" if name else str(key))
    elif isinstance(content, list):
        for index, value in enumerate(content):
            yield from _tensors(value, f"{name}.{index}")
