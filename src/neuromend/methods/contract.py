"""The one contract between a method and everything around it.

A method is an ``nn.Module`` built from a frozen ``Config``, with two verbs: ``loss`` for training and ``sample``
for filling. Tensors are (B, 1, X, Y, Z) in RAS, normalised so that background is about 0 and bright tissue about
1; what a method slices, transforms or encodes inside, nobody outside knows.
"""

from __future__ import annotations

from typing import Any, ClassVar, Literal, Protocol

from torch import Generator, Tensor

from neuromend.diffusion.samplers import OnStep

Sampler = Literal["ddim", "dpmpp", "ddpm", "published"]
"""How a diffusion method walks from noise to tissue: ``diffusion/samplers.py``, or the recipe of its authors."""


Sides = tuple[int, int, int]
"""Sides of a volume in voxels: left-right, back-front, bottom-top."""

TURNED = (2, 3)
"""Axes that run the other way in the published networks: they were trained on arrays to the left and the back (LPS)."""


class Method(Protocol):
    """What every entry of ``METHODS`` offers; all are ``nn.Module`` besides.

    Attributes:
        Config: a frozen dataclass whose fields are JSON values, tuples and literals.
        PRESETS: configs by name; "tiny" (tests) is always there.
        expected_steps: the number of steps with which ``sample`` returns the expected fill; None where the
            method knows only random samples.
        default_steps: steps of one random sample.
        most_steps: the most that ``sample`` can take, one for each noise level; None for any number.

    A method whose samples are no possible anatomies says so: ``samples_are_anatomies = False`` (unet3d).
    """

    Config: ClassVar[type[Any]]
    PRESETS: ClassVar[dict[str, Any]]
    expected_steps: int | None
    default_steps: int
    most_steps: int | None

    def __init__(self, config: Any) -> None: ...

    @property
    def multiple(self) -> int:
        """The sides of a volume must be divisible by this."""
        ...

    @property
    def window(self) -> Sides | None:
        """The longest sides that the network was trained to see; a larger volume is filled in windows of these.

        None: any volume is filled at once. Divisible by ``multiple``. Whoever fills applies it
        (``methods/windows.py``), not ``sample``.
        """
        ...

    def memory_bytes(self, sides: Sides) -> int:
        """Peak memory of ``sample`` for one volume of these sides (at most ``window``), beyond the weights.

        For float32, with some margin; measured by benchmarks/bench_sample_memory.py.
        """
        ...

    def loss(self, healthy: Tensor, voided: Tensor, mask: Tensor, generator: Generator) -> Tensor:
        """One scalar to minimise; what ``voided`` holds inside the mask has no influence."""
        ...

    def sample(
        self,
        voided: Tensor,
        mask: Tensor,
        *,
        steps: int,
        generator: Generator,
        on_step: OnStep | None = None,
    ) -> Tensor:
        """The filled volume, (B, 1, X, Y, Z); voxels outside the mask come back unchanged."""
        ...


def check_volumes(
    multiple: int, voided: Tensor, mask: Tensor, *, healthy: Tensor | None = None, steps: int = 1
) -> None:
    """Refuse what a network would refuse later, in words that name the shapes.

    Raises:
        ValueError: a volume is not (B, 1, X, Y, Z) with sides divisible by ``multiple``, the volumes differ in
            shape, or ``steps`` is below 1.
    """
    shape = tuple(voided.shape)
    if len(shape) != 5 or shape[1] != 1 or any(side % multiple for side in shape[2:]):
        raise ValueError(
            f"a volume must be (B, 1, X, Y, Z) with sides divisible by {multiple}; found shape {shape}"
        )
    for name, other in (("mask", mask), ("healthy image", healthy)):
        if other is not None and tuple(other.shape) != shape:
            raise ValueError(f"the {name} has shape {tuple(other.shape)}; expected {shape}, as the volume")
    if steps < 1:
        raise ValueError(f"steps must be 1 or more; found {steps}")
