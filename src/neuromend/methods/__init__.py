"""The methods under the one contract, ``loss`` and ``sample``: one file, one line here, one docs page each."""

from __future__ import annotations

from neuromend.methods.contract import Method
from neuromend.methods.fastwavelet3d import FastWavelet3D
from neuromend.methods.fastwdm3d import FastWDM3D
from neuromend.methods.full3d import Full3D
from neuromend.methods.latent3d import Latent3D
from neuromend.methods.pseudo3d import Pseudo3D
from neuromend.methods.sequential2d import Sequential2D
from neuromend.methods.slice2d import Slice2D
from neuromend.methods.unet3d import RegressionUNet3D
from neuromend.methods.wavelet3d import Wavelet3D

METHODS: dict[str, type[Method]] = {
    "fastwavelet3d": FastWavelet3D,
    "fastwdm3d": FastWDM3D,
    "full3d": Full3D,
    "wavelet3d": Wavelet3D,
    "unet3d": RegressionUNet3D,
    "slice2d": Slice2D,
    "sequential2d": Sequential2D,
    "pseudo3d": Pseudo3D,
    "latent3d": Latent3D,
}
