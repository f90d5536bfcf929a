"""The codebook of a VQ-GAN: nearest codes, and codes that follow the latents (van den Oord et al. 2017)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

DISTANCES_AT_ONCE = 1 << 26
"""Entries of the table of distances between latents and codes: 256 MB in float32."""

CODE_DECAY = 0.99
"""Decay of the moving averages of the codebook, published."""

RESTART_BELOW = 1.0
"""A code with fewer latents a step, as a moving average, is replaced by a latent of this step; published."""


class Codebook(nn.Module):
    """The codes, each the moving average of the latents nearest to it (van den Oord et al. 2017, appendix A.1).

    Buffers: ``embeddings`` (K, D) the codes; ``N`` (K,) and ``z_avg`` (K, D) moving averages of how many latents
    a step chose the code and of their sum; ``initialised`` (1,) 1 once the codes come from data.
    """

    embeddings: Tensor
    N: Tensor
    z_avg: Tensor
    initialised: Tensor

    def __init__(self, count: int, width: int) -> None:
        super().__init__()
        codes = torch.randn(count, width)
        self.register_buffer("embeddings", codes)
        self.register_buffer("N", torch.zeros(count))
        self.register_buffer("z_avg", codes.clone())
        self.register_buffer("initialised", torch.zeros(1))

    def nearest(self, z: Tensor) -> Tensor:
        """(B, D, x, y, z) -> (B, x, y, z) index of the nearest code (Euclidean, searched in float32)."""
        with torch.autocast(z.device.type, enabled=False):
            flat, codes = self._rows(z).float(), self.embeddings.float()
            length = codes.square().sum(1)
            rows = max(1, DISTANCES_AT_ONCE // len(codes))
            found = [torch.addmm(length, part, codes.T, alpha=-2).argmin(1) for part in flat.split(rows)]  # type: ignore[no-untyped-call]
        return torch.cat(found).reshape(len(z), *z.shape[2:])

    def codes(self, index: Tensor) -> Tensor:
        """(B, x, y, z) -> (B, D, x, y, z)."""
        return F.embedding(index, self.embeddings).movedim(-1, 1)

    @torch.no_grad()
    def initialise(self, z: Tensor, generator: torch.Generator) -> None:
        """Take the codes from the first latents seen; does nothing once they are."""
        if self.initialised.item():
            return
        codes = self._draw(self._rows(z), generator)
        self.embeddings.copy_(codes)
        self.z_avg.copy_(codes)
        self.N.fill_(1)
        self.initialised.fill_(1)

    @torch.no_grad()
    def update(self, z: Tensor, index: Tensor, generator: torch.Generator) -> None:
        """Move the codes towards the latents that chose them; replace those that hardly any latent chooses."""
        flat, chosen = self._rows(z).float(), index.flatten()
        count = torch.zeros_like(self.N).index_add_(0, chosen, torch.ones_like(flat[:, 0]))
        total = torch.zeros_like(self.z_avg).index_add_(0, chosen, flat)
        self.N.lerp_(count, 1 - CODE_DECAY)
        self.z_avg.lerp_(total, 1 - CODE_DECAY)
        unused = self.N < RESTART_BELOW
        fresh = self._draw(flat, generator)
        # A code starts again as if one latent a step had chosen it; otherwise its old average would bring it back.
        self.N.masked_fill_(unused, 1.0)
        self.z_avg.copy_(torch.where(unused[:, None], fresh, self.z_avg))
        self.embeddings.copy_(self.z_avg / self.N[:, None])

    def _draw(self, flat: Tensor, generator: torch.Generator) -> Tensor:
        """As many random latents as there are codes."""
        pick = torch.randint(len(flat), (len(self.N),), generator=generator, device=generator.device)
        return flat[pick.to(flat.device)].float()

    @staticmethod
    def _rows(z: Tensor) -> Tensor:
        return z.movedim(1, -1).flatten(0, -2)
