"""The methods under the one contract, ``loss`` and ``sample``: one file, one line here, one docs page each."""

from __future__ import annotations

from neuromend.methods.contract import Method
from neuromend.methods.fastwavelet3d import FastWavelet3D
from neuromend.methods.full3d import Full3D

METHODS: dict[str, type[Method]] = {
    "fastwavelet3d": FastWavelet3D,
    "full3d": Full3D,
}
