"""Attention for volumes seen as videos: along the frames, within the frames, and linear within the frames.

With ``low_memory`` a bounded number of sequences is attended to at a time, and computed again in the backward
pass. Attribute names are those of the published latent method.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from neuromend.networks.recomputing import recomputed

HEADS, HEAD_WIDTH = 8, 32
"""Attention heads and channels of each, published."""

BUCKETS, MAX_DISTANCE = 32, 32
"""Relative position bias: number of distances told apart, and the distance from which all are one."""

TOKENS_AT_ONCE = 1 << 17
"""Voxels that attention looks at together with ``low_memory``: their queries, keys and values take 400 MB in fp32."""


class RelativePositionBias(nn.Module):
    """A learned bias on attention scores for the distance of two frames, in logarithmic buckets."""

    def __init__(self) -> None:
        super().__init__()
        self.relative_attention_bias = nn.Embedding(BUCKETS, HEADS)

    def forward(self, frames: int) -> Tensor:
        """(heads, frames, frames), indexed by query and key."""
        position = torch.arange(frames, device=self.relative_attention_bias.weight.device)
        behind = position[:, None] - position[None, :]
        half, exact = BUCKETS // 2, BUCKETS // 4
        distance = behind.abs()
        log = torch.log(distance.clamp(min=1).float() / exact) / math.log(MAX_DISTANCE / exact)
        far = (exact + (log * (half - exact)).long()).clamp(max=half - 1)
        bucket = torch.where(distance < exact, distance, far) + half * (behind < 0)
        bias: Tensor = self.relative_attention_bias(bucket)
        return bias.permute(2, 0, 1)


class ChannelNorm(nn.Module):
    """Layer normalisation over the channels of each voxel, with a gain and no offset."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.ones(1, channels, 1, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, X, Y, Z) -> the same shape; in channels-last memory nothing is copied."""
        last = F.layer_norm(x.movedim(1, -1), (x.shape[1],), self.gamma.flatten().to(x.dtype), None, 1e-5)
        return last.movedim(-1, 1)


class Rotary(nn.Module):
    """Rotary position embedding: pairs of neighbouring channels turn with the position."""

    freqs: Tensor
    quarter: Tensor
    """Zeros and ones that turn the pairs by 90 degrees: on CPUs thrice as fast as slices with a stride."""

    def __init__(self) -> None:
        super().__init__()
        even = torch.arange(0, HEAD_WIDTH, 2)
        self.register_buffer("freqs", 10000 ** (-even / HEAD_WIDTH))
        quarter = torch.zeros(HEAD_WIDTH, HEAD_WIDTH)
        quarter[even, even + 1], quarter[even + 1, even] = 1, -1
        self.register_buffer("quarter", quarter, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """(..., positions, HEAD_WIDTH) -> the same shape, turned."""
        angle = torch.arange(x.shape[-2], device=x.device)[:, None] * self.freqs.repeat_interleave(2)
        x = x.contiguous()
        turned = x @ self.quarter.to(x.dtype)
        return torch.addcmul(x * angle.cos().to(x.dtype), turned, angle.sin().to(x.dtype))


class Attention(nn.Module):
    """Softmax attention along sequences, (sequences, positions, channels) -> the same shape."""

    def __init__(self, channels: int, *, rotary: bool, low_memory: bool) -> None:
        super().__init__()
        self.low_memory = low_memory
        self.rotary_emb = Rotary() if rotary else None
        self.to_qkv = nn.Linear(channels, 3 * HEADS * HEAD_WIDTH, bias=False)
        self.to_out = nn.Linear(HEADS * HEAD_WIDTH, channels, bias=False)

    def forward(self, x: Tensor, bias: Tensor | None = None) -> Tensor:
        """Attend; ``bias`` (heads, positions, positions) is added to the scores."""
        if not self.low_memory:
            return self._attend(x, bias)
        count = max(1, TOKENS_AT_ONCE // x.shape[1])
        return torch.cat([recomputed(self._attend, part, bias) for part in x.split(count)])  # type: ignore[no-untyped-call]

    def _attend(self, x: Tensor, bias: Tensor | None) -> Tensor:
        q, k, v = self.to_qkv(x).unflatten(-1, (3, HEADS, HEAD_WIDTH)).permute(2, 0, 3, 1, 4)
        if self.rotary_emb is not None:
            q, k = self.rotary_emb(q), self.rotary_emb(k)
        scores = None if bias is None else bias.to(q.dtype)[None]
        attended = F.scaled_dot_product_attention(q, k, v, attn_mask=scores)
        out: Tensor = self.to_out(attended.transpose(1, 2).flatten(2))
        return out


class AlongFrames(nn.Module):
    """Attention over the first axis, for each place within the frame on its own."""

    def __init__(self, fn: Attention) -> None:
        super().__init__()
        self.fn = fn

    def forward(self, x: Tensor, bias: Tensor) -> Tensor:
        """(B, C, F, H, W) -> the same shape."""
        b, c, f, h, w = x.shape
        out: Tensor = self.fn(x.permute(0, 3, 4, 2, 1).reshape(b * h * w, f, c), bias)
        return out.reshape(b, h, w, f, c).permute(0, 4, 3, 1, 2)


class WithinFrames(nn.Module):
    """Attention over the two axes of each frame on its own."""

    def __init__(self, fn: Attention) -> None:
        super().__init__()
        self.fn = fn

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, F, H, W) -> the same shape."""
        b, c, f, h, w = x.shape
        out: Tensor = self.fn(x.permute(0, 2, 3, 4, 1).reshape(b * f, h * w, c))
        return out.reshape(b, f, h, w, c).permute(0, 4, 1, 2, 3)


class LinearAttention(nn.Module):
    """Attention within each frame at a cost linear in its size: keys and values first meet in a small matrix.

    The 1x1 convolutions of the published weights are applied as matrix products.
    """

    def __init__(self, channels: int, *, low_memory: bool) -> None:
        super().__init__()
        self.low_memory = low_memory
        self.to_qkv = nn.Conv2d(channels, 3 * HEADS * HEAD_WIDTH, 1, bias=False)
        self.to_out = nn.Conv2d(HEADS * HEAD_WIDTH, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, F, H, W) -> the same shape."""
        b, c, f, h, w = x.shape
        tokens = x.permute(0, 2, 3, 4, 1).reshape(b * f, h * w, c)
        count = max(1, TOKENS_AT_ONCE // (h * w)) if self.low_memory else b * f
        parts = tokens.split(count)  # type: ignore[no-untyped-call]
        out = torch.cat([recomputed(self._attend, part, enabled=self.low_memory) for part in parts])
        return out.reshape(b, f, h, w, c).permute(0, 4, 1, 2, 3)

    def _attend(self, x: Tensor) -> Tensor:
        qkv = F.linear(x, self.to_qkv.weight.flatten(1))
        q, k, v = qkv.unflatten(-1, (3, HEADS, HEAD_WIDTH)).permute(2, 0, 3, 1, 4)  # type: ignore[no-untyped-call]
        q = q.softmax(dim=-1)
        context = k.softmax(dim=-2).to(v.dtype).transpose(-1, -2) @ v * HEAD_WIDTH**-0.5
        attended = (q.to(v.dtype) @ context).transpose(1, 2).flatten(2)
        return F.linear(attended, self.to_out.weight.flatten(1), self.to_out.bias)


class PreNorm(nn.Module):
    """Normalise over channels, then apply ``fn``."""

    def __init__(self, channels: int, fn: nn.Module) -> None:
        super().__init__()
        self.norm = ChannelNorm(channels)
        self.fn = fn

    def forward(self, x: Tensor, *args: Tensor) -> Tensor:
        """(B, C, F, H, W) -> the same shape."""
        out: Tensor = self.fn(self.norm(x), *args)
        return out


class Residual(nn.Module):
    """x + fn(x)."""

    def __init__(self, fn: nn.Module) -> None:
        super().__init__()
        self.fn = fn

    def forward(self, x: Tensor, *args: Tensor) -> Tensor:
        """(B, C, F, H, W) -> the same shape."""
        out: Tensor = x + self.fn(x, *args)
        return out
