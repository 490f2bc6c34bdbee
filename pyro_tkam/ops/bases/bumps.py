"""The kernels of the bases: Gaussian, reflectional switch, and two wavelets."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from pyro_tkam.ops.bases.kernels import ShiftedKernel

_MINUS_HALF_LOG2_E = -0.5 * math.log2(math.e)

#: beyond this many units every Gaussian is zero in every precision
_REACH = 64.0


class GaussianKernels(ShiftedKernel):
    r"""Gaussian radial basis, :math:`κ(u) = \exp(-u^2/2)` (Li 2024, arXiv:2405.06721)."""

    @staticmethod
    def derivative(u: Tensor, order: int) -> Tensor:
        """Evaluate a derivative, a Hermite polynomial times the Gaussian."""
        return gaussian_derivative(u, order)

    @classmethod
    def overwrite(cls, u: Tensor, order: int) -> Tensor:
        """Evaluate a derivative, for low orders in the memory of ``u``."""
        if order > 1:
            return cls.derivative(u, order)
        gaussian = (u * u if order else u.mul_(u)).mul_(_MINUS_HALF_LOG2_E).exp2_()
        return u.mul_(gaussian).neg_() if order else gaussian


class SwitchKernels(ShiftedKernel):
    r"""Reflectional switch activations (RSWAF), :math:`κ(u) = 1 - \tanh^2(u)`."""

    @staticmethod
    def derivative(u: Tensor, order: int) -> Tensor:
        r"""
        Evaluate a derivative, :math:`(1 - t^2)\, q_n(t)` with :math:`t = \tanh u`.

        :math:`q_0 = 1`, :math:`q_{n+1} = (1 - t^2) q_n' - 2 t q_n`. Computed with sigmoids, which
            CPUs evaluate faster than tanh.
        """
        rising = torch.sigmoid(2 * u)
        t = 2 * rising - 1
        total = torch.zeros_like(t)
        for power in reversed(_switch_polynomial(order)):
            total = total * t + power
        return 4 * rising * torch.sigmoid(-2 * u) * total


class MexicanHats(ShiftedKernel):
    r"""
    Mexican-hat wavelets, :math:`κ(u) = \frac{2}{\sqrt3 π^{1/4}} (1 - u^2) e^{-u^2/2}` (Wav-KAN,
    Bozorgasl 2024).
    """

    @staticmethod
    def derivative(u: Tensor, order: int) -> Tensor:
        """Evaluate a derivative: the hat is minus the second derivative of a Gaussian."""
        return (-2 / (math.sqrt(3) * math.pi**0.25)) * gaussian_derivative(u, order + 2)


class MorletWavelets(ShiftedKernel):
    r"""Morlet wavelets, :math:`κ(u) = \cos(5u)\, e^{-u^2/2}` (Wav-KAN, Bozorgasl 2024)."""

    frequency = 5.0

    @classmethod
    def derivative(cls, u: Tensor, order: int) -> Tensor:
        r"""
        Evaluate a derivative, the real part of that of :math:`D_0 = e^{iωu - u^2/2}`.

        :math:`D_{n+1} = (iω - u) D_n - n D_{n-1}`.
        """
        u = u.clamp(-_REACH, _REACH)
        w = cls.frequency
        gaussian = gaussian_derivative(u, 0)
        previous = (torch.zeros_like(u), torch.zeros_like(u))
        real = gaussian * torch.cos(w * u)
        imag = gaussian * torch.sin(w * u)
        for n in range(order):
            following = (
                -u * real - w * imag - n * previous[0],
                w * real - u * imag - n * previous[1],
            )
            previous = (real, imag)
            (real, imag) = following
        return real


def gaussian_derivative(u: Tensor, order: int) -> Tensor:
    r"""
    Evaluate :math:`\partial_u^n e^{-u^2/2} = (-1)^n \mathrm{He}_n(u) e^{-u^2/2}`.

    Computed in base two, which is several times faster than ``exp`` on CPUs, above all if the
    result underflows.
    """
    if order > 0:  # polynomials must not overflow where the Gaussian is zero
        u = u.clamp(-_REACH, _REACH)
    gaussian = torch.exp2(u.square() * _MINUS_HALF_LOG2_E)
    if order == 0:
        return gaussian
    previous = gaussian
    current = -u * gaussian
    for n in range(1, order):
        previous, current = current, -(u * current + n * previous)
    return current


def _switch_polynomial(order: int) -> list[float]:
    """Coefficients of ``q_n``, lowest power first."""
    q = [1.0]
    for _ in range(order):
        slope = [i * a for i, a in enumerate(q)][1:]
        following = [0.0] * (len(q) + 1)
        for i, a in enumerate(slope):
            following[i] += a
            following[i + 2] -= a
        for i, a in enumerate(q):
            following[i + 1] -= 2 * a
        q = following
    return q
