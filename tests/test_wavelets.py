"""The Haar transform: against PyWavelets, against the published fixtures, and against its own algebra."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import pywt
import torch

from neuromend.wavelets import BANDS, haar, inverse_haar

FIXTURE = Path(__file__).resolve().parents[2] / "shared" / "parity" / "WDM_3D" / "diffusion.npz"


def volume(*shape: int, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0), dtype=dtype)


def test_bands_agree_with_pywavelets_in_the_stated_order() -> None:
    x = volume(3, 2, 4, 6, 10)
    bands = haar(x)
    assert bands.shape == (3, 16, 2, 3, 5)
    expected = pywt.dwtn(x.numpy(), "haar", axes=(2, 3, 4))
    for k, name in enumerate(BANDS):
        reference = expected[name.replace("L", "a").replace("H", "d")]
        np.testing.assert_allclose(bands[:, 2 * k : 2 * k + 2].numpy(), reference, atol=1e-12)


def test_high_pass_is_even_minus_odd() -> None:
    x = torch.zeros(1, 1, 2, 2, 2)
    x[..., 1, 0, 0] = 1.0  # an odd index along dimension 2 only: the bands that begin with H turn negative
    signs = haar(x).flatten().sign().tolist()
    assert signs == [-1.0 if name[0] == "H" else 1.0 for name in BANDS]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_inverse_undoes_the_transform(dtype: torch.dtype) -> None:
    x = volume(3, 2, 4, 6, 10, dtype=dtype)
    torch.testing.assert_close(inverse_haar(haar(x)), x)
    bands = volume(3, 16, 4, 5, 6, dtype=dtype)
    torch.testing.assert_close(haar(inverse_haar(bands)), bands)


def test_bfloat16_stays_bfloat16_and_loses_only_rounding() -> None:
    x = volume(2, 1, 4, 6, 8, dtype=torch.bfloat16)
    bands = haar(x)
    assert bands.dtype == torch.bfloat16
    torch.testing.assert_close(bands.float(), haar(x.float()), atol=0.03, rtol=0.02)
    torch.testing.assert_close(inverse_haar(bands), x, atol=0.05, rtol=0.03)


def test_transform_is_orthonormal() -> None:
    matrix = haar(torch.eye(8, dtype=torch.float64).reshape(8, 1, 2, 2, 2)).reshape(8, 8)
    torch.testing.assert_close(matrix @ matrix.T, torch.eye(8, dtype=torch.float64))
    x = volume(3, 2, 4, 6, 10)
    torch.testing.assert_close(haar(x).square().sum(), x.square().sum())


def test_channels_last_input_gives_the_same_bands() -> None:
    x = volume(2, 3, 4, 6, 8)
    torch.testing.assert_close(haar(x.contiguous(memory_format=torch.channels_last_3d)), haar(x))
    bands = volume(2, 24, 2, 3, 4)
    scattered = bands.contiguous(memory_format=torch.channels_last_3d)
    torch.testing.assert_close(inverse_haar(scattered), inverse_haar(bands))


def test_input_is_not_changed() -> None:
    x = volume(1, 1, 2, 4, 6)
    before = x.clone()
    inverse_haar(haar(x))
    assert torch.equal(x, before)


@pytest.mark.parametrize(("transform", "shape"), [(haar, (1, 2, 2, 4, 6)), (inverse_haar, (1, 16, 1, 2, 3))])
def test_gradients_of_first_and_second_order_are_right(transform, shape) -> None:
    x = volume(*shape).requires_grad_()
    assert torch.autograd.gradcheck(transform, (x,))
    assert torch.autograd.gradgradcheck(transform, (x,))


@pytest.mark.parametrize("shape", [(1, 1, 3, 4, 6), (1, 1, 4, 5, 6), (1, 1, 4, 6, 7), (4, 6, 8)])
def test_odd_sides_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"even X, Y, Z; found shape \("):
        haar(torch.zeros(shape))


@pytest.mark.parametrize("shape", [(1, 12, 2, 3, 4), (8, 2, 3, 4)])
def test_channels_that_are_no_multiple_of_eight_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"8\*C"):
        inverse_haar(torch.zeros(shape))


@pytest.mark.shared
def test_bands_agree_with_the_published_code() -> None:
    if not FIXTURE.exists():
        pytest.skip("the parity fixtures are not beside this checkout")
    with np.load(FIXTURE) as fixture:
        arrays = {key: torch.from_numpy(fixture[key]) for key in fixture if "dwt" in key}
    x = arrays["dwt_input"]
    bands = haar(x)
    for k, name in enumerate(BANDS):
        torch.testing.assert_close(bands[:, 2 * k : 2 * k + 2], arrays[f"dwt_{name}"], atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(inverse_haar(bands), arrays["dwt_inverse"], atol=1e-6, rtol=1e-5)
    bands[:, :2] /= 3  # the published network sees a third of the LLL band: the method's business, not ours
    torch.testing.assert_close(bands, arrays["dwt_network_layout"], atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(haar(torch.ones(1, 1, 2, 2, 2)), arrays["dwt_of_ones"], atol=1e-6, rtol=1e-5)
    impulses = haar(torch.eye(8).reshape(8, 1, 2, 2, 2)).reshape(8, 8)
    torch.testing.assert_close(impulses, arrays["dwt_impulse_matrix"], atol=1e-6, rtol=1e-5)
