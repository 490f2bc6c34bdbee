"""Laws of evidence estimators, on models whose power posteriors can be drawn exactly."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.distributions import MultivariateNormal

from pyro_tkam.ops.estimators import Estimate


@dataclass(frozen=True)
class ConjugateRegression:
    """``x ~ N(design z, I)`` with ``z ~ N(0, I)``: every power posterior is Gaussian."""

    design: Tensor
    observed: Tensor

    @classmethod
    def example(cls, num_data: int, dim: int, scale: float = 1.0) -> "ConjugateRegression":
        generator = torch.Generator().manual_seed(0)
        design = scale * torch.randn(num_data, dim, generator=generator, dtype=torch.float64)
        truth = torch.randn(dim, generator=generator, dtype=torch.float64)
        noise = torch.randn(num_data, generator=generator, dtype=torch.float64)
        return cls(design, design @ truth + noise)

    @property
    def log_evidence(self) -> Tensor:
        covariance = self.design @ self.design.T + torch.eye(
            len(self.observed), dtype=torch.float64
        )
        return MultivariateNormal(torch.zeros_like(self.observed), covariance).log_prob(
            self.observed
        )

    def log_lik(self, z: Tensor) -> Tensor:
        residual = self.observed - z @ self.design.T
        return -(residual.square().sum(-1) + len(self.observed) * math.log(2 * math.pi)) / 2

    def log_joint(self, z: Tensor) -> Tensor:
        return self.log_lik(z) - (z.square().sum(-1) + z.shape[-1] * math.log(2 * math.pi)) / 2

    def power_posterior(self, beta: Tensor) -> MultivariateNormal:
        precision = (
            torch.eye(self.design.shape[1], dtype=torch.float64)
            + beta * self.design.T @ self.design
        )
        loc = torch.linalg.solve(precision, beta * self.design.T @ self.observed)
        return MultivariateNormal(loc, precision_matrix=precision)

    def mean_log_lik(self, beta: Tensor) -> Tensor:
        posterior = self.power_posterior(beta)
        spread = torch.einsum("ni,ij,nj->", self.design, posterior.covariance_matrix, self.design)
        return self.log_lik(posterior.loc) - spread / 2

    def variance_log_lik(self, beta: Tensor) -> Tensor:
        posterior = self.power_posterior(beta)
        hessian = self.design.T @ self.design @ posterior.covariance_matrix
        slope = self.design.T @ (self.observed - self.design @ posterior.loc)
        return (hessian @ hessian).trace() / 2 + slope @ posterior.covariance_matrix @ slope

    def draws(
        self, betas: Tensor, shape: tuple[int, ...], correlation: float = 0.0, in_step: bool = False
    ) -> Tensor:
        """Exact draws ``(temperature, *shape, dim)``, where ``shape = (chain, draw, *batch)``.

        :param correlation: autocorrelation of neighboring draws of a chain.
        :param in_step: whether all temperatures move together, as rungs that swap states do in
            part.
        """
        rungs = 1 if in_step else len(betas)
        normal = autoregression(
            torch.randn(rungs, *shape, self.design.shape[1], dtype=torch.float64), 2, correlation
        )
        posteriors = [self.power_posterior(beta) for beta in betas]
        return torch.stack(
            [
                p.loc + z @ p.scale_tril.T
                for p, z in zip(
                    posteriors, normal.expand(len(betas), *normal.shape[1:]), strict=True
                )
            ]
        )


def autoregression(normal: Tensor, dim: int, correlation: float) -> Tensor:
    """Stationary standard normal AR(1) sequences along a dimension, made of independent normals."""
    if correlation == 0.0:
        return normal
    noise = normal.unbind(dim)
    states = [noise[0]]
    for step in noise[1:]:
        states.append(correlation * states[-1] + math.sqrt(1 - correlation**2) * step)
    return torch.stack(states, dim)


def value_is_right(estimate: Estimate, exact: Tensor) -> None:
    """
    The mean error over replications is zero: a z-test with a false-alarm rate of 6e-7 (5 standard
    errors).
    """
    error = estimate.value - exact
    assert error.mean().abs() <= 5 * error.std() / len(error) ** 0.5, (error.mean(), error.std())


def errors_are_calibrated(estimate: Estimate, exact: Tensor) -> None:
    """
    The 95% point of ``|error| / standard error`` over replications lies between 1.7 and 2.4
    (exactly: 1.96).

    Over 1,000 replications the point itself has a standard error of 0.06: the false-alarm rate is
    below 1e-4.
    """
    point = ((estimate.value - exact).abs() / estimate.standard_error).quantile(0.95)
    assert 1.7 <= point <= 2.4, point
