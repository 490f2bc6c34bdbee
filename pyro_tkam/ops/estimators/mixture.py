"""Mixtures of Gaussians or Student-t distributions, fitted to many sets of draws at once."""

import math
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import pad

__all__ = ["Mixture", "component_log_joint", "fit_mixture", "maximize"]

_NUM_COMPONENTS = (1, 2, 4, 8)
STUDENT_DF = 5.0  # tails heavy enough to bound most ratios
_NUM_STARTS = 3
MIN_DRAWS_PER_COMPONENT = 5  # times the dimension plus one
_MAX_ITERATIONS = 50
_TOLERANCE = 1e-3  # nats a draw


class Mixture(NamedTuple):
    """A mixture ``Σ_j w_j t_ν(μ_j, L_j L_jᵀ)`` for each batch element; ``ν = inf`` is the Gaussian.

    Shapes: ``log_weights (batch, component)``, ``loc (batch, component, dim)``,
    ``scale_tril (batch, component, dim, dim)``, ``df (batch,)``.
    """

    log_weights: Tensor
    loc: Tensor
    scale_tril: Tensor
    df: Tensor

    def log_prob(self, value: Tensor) -> Tensor:
        """Log density at points of shape ``(N, batch, dim)``: shape ``(N, batch)``."""
        log_joint, _ = component_log_joint(self, value.movedim(0, 1))
        return log_joint.logsumexp(1).mT

    def sample(self, num: int) -> Tensor:
        """Draws of shape ``(num, batch, dim)``."""
        batch, _, dim = self.loc.shape
        component = torch.multinomial(self.log_weights.exp(), num, replacement=True)
        row = torch.arange(batch, device=self.loc.device).unsqueeze(-1)
        normal = torch.randn(batch, num, dim, dtype=self.loc.dtype, device=self.loc.device)
        gaussian = self.df.isinf()
        half_df = torch.where(gaussian, 1.0, self.df / 2).unsqueeze(-1).expand(batch, num)
        stretch = (half_df / torch.distributions.Gamma(half_df, 1.0).sample()).sqrt()
        stretch = torch.where(gaussian.unsqueeze(-1), 1.0, stretch)
        step = self._scaled(normal, component)
        return (self.loc[row, component] + stretch.unsqueeze(-1) * step).movedim(1, 0)

    def _scaled(self, normal: Tensor, component: Tensor) -> Tensor:
        """
        Multiply draws ``(batch, N, dim)`` by the scales of their components ``(batch, N)``, without
        a copy of the matrix for each draw.
        """
        step = torch.zeros_like(normal)
        for number, scale_tril in enumerate(self.scale_tril.unbind(1)):
            own = (component == number).unsqueeze(-1)
            step = torch.where(own, normal @ scale_tril.mT, step)
        return step


def fit_mixture(draws: Tensor, effective_size: Tensor) -> Mixture:
    """
    Fit Gaussian and Student-t mixtures of several sizes by EM, and keep the one with the best BIC.

    :param draws: points of shape ``(N, batch, dim)``.
    :param effective_size: number of independent draws that the ``N`` draws are worth, of shape
        ``(batch,)``.
    :raises ValueError: if some linear combination of the coordinates does not vary.
    """
    draws = draws.movedim(0, 1)  # inside, batches come first
    num, dim = draws.shape[1:]
    loc, scale_tril = _moments(draws)
    white = torch.linalg.solve_triangular(scale_tril, (draws - loc).mT, upper=False).mT
    largest = max(1, num // (MIN_DRAWS_PER_COMPONENT * (dim + 1)))
    best, score = _fit_size(white, 1, effective_size)
    for num_components in (size for size in _NUM_COMPONENTS if 1 < size <= largest):
        candidate, its_score = _fit_size(white, num_components, effective_size)
        best, score = _select(
            [_padded(best, num_components), candidate], torch.stack([score, its_score])
        )
        if (score < its_score).all():
            break
    return Mixture(
        best.log_weights,
        loc + (scale_tril @ best.loc.mT).mT,
        scale_tril.unsqueeze(1) @ best.scale_tril,
        best.df,
    )


def _moments(draws: Tensor) -> tuple[Tensor, Tensor]:
    """
    Mean ``(batch, 1, dim)`` and Cholesky factor of the covariance, by way of the correlations.
    """
    loc = draws.mean(1, keepdim=True)
    scale = draws.std(1)
    varies = scale > 0
    standard = (draws - loc) / torch.where(varies, scale, 1.0).unsqueeze(1)
    correlation_tril, failed = torch.linalg.cholesky_ex(
        standard.mT @ standard / (draws.shape[1] - 1)
    )
    # variance that the coordinates before do not explain
    own = correlation_tril.diagonal(dim1=-2, dim2=-1).square()
    if (
        not varies.all()
        or failed.any()
        or (own <= 4 * own.shape[-1] * torch.finfo(own.dtype).eps).any()
    ):
        raise ValueError(
            "draws must vary in every direction, got coordinates that are constant or linearly "
            "dependent"
        )
    return loc, scale.unsqueeze(-1) * correlation_tril


def _fit_size(draws: Tensor, num_components: int, effective_size: Tensor) -> tuple[Mixture, Tensor]:
    """
    The best of some Gaussian mixtures and of the Student-t mixture found from it, with its
    criterion.
    """
    num_starts = _NUM_STARTS if num_components > 1 else 1
    fits = [
        _expectation_maximization(draws, _spread_centers(draws, num_components))
        for _ in range(num_starts)
    ]
    gaussian, score = _select(fits, torch.stack([_bic(fit, draws, effective_size) for fit in fits]))
    student = _expectation_maximization(
        draws, gaussian._replace(df=torch.full_like(gaussian.df, STUDENT_DF))
    )
    return _select([gaussian, student], torch.stack([score, _bic(student, draws, effective_size)]))


def _select(candidates: list[Mixture], scores: Tensor) -> tuple[Mixture, Tensor]:
    """For each batch element the candidate with the smallest score, and that score."""
    score, best = scores.min(0)
    row = torch.arange(len(best), device=best.device)
    return Mixture(
        *(torch.stack(field)[best, row] for field in zip(*candidates, strict=True))
    ), score


def _expectation_maximization(draws: Tensor, mixture: Mixture) -> Mixture:
    """
    Climb to a maximum of the likelihood; components with too few draws are dropped.

    A batch element leaves the others when it has converged, as if it were fitted alone.
    """
    climbing = torch.arange(len(draws), device=draws.device)
    fitted = Mixture(*(field.clone() for field in mixture))
    log_joint, distance = component_log_joint(mixture, draws)
    log_likelihood = log_joint.logsumexp(1).mean(-1)
    for _ in range(_MAX_ITERATIONS):
        mixture = maximize(draws, log_joint.softmax(1), distance, mixture.df)
        for whole, own in zip(fitted, mixture, strict=True):
            whole[climbing] = own
        log_joint, distance = component_log_joint(mixture, draws)
        previous, log_likelihood = log_likelihood, log_joint.logsumexp(1).mean(-1)
        rises = log_likelihood - previous >= _TOLERANCE
        if not rises.any():
            break
        if not rises.all():
            climbing, draws, log_likelihood = climbing[rises], draws[rises], log_likelihood[rises]
            log_joint, distance = log_joint[rises], distance[rises]
            mixture = Mixture(*(field[rises] for field in mixture))
    return fitted


def _spread_centers(draws: Tensor, num_components: int) -> Mixture:
    """
    A Gaussian mixture to start from: centers far apart (Arthur and Vassilvitskii 2007), one common
    width.
    """
    batch, num, dim = draws.shape
    row = torch.arange(batch, device=draws.device)
    centers = draws[row, torch.randint(num, (batch,), device=draws.device)].unsqueeze(1)
    distance = (draws - centers).square().sum(-1)
    for _ in range(num_components - 1):
        chosen = torch.multinomial(distance + torch.finfo(draws.dtype).tiny, 1).squeeze(-1)
        center = draws[row, chosen].unsqueeze(1)
        centers = torch.cat([centers, center], 1)
        distance = torch.minimum(distance, (draws - center).square().sum(-1))
    width = (distance.mean(-1) / dim + _ridge(draws)).sqrt()
    eye = torch.eye(dim, dtype=draws.dtype, device=draws.device)
    return Mixture(
        draws.new_full((batch, num_components), -math.log(num_components)),
        centers,
        (width[:, None, None, None] * eye).expand(batch, num_components, dim, dim),
        draws.new_full((batch,), math.inf),
    )


def maximize(draws: Tensor, responsibility: Tensor, distance: Tensor, df: Tensor) -> Mixture:
    """
    The M step; a Student-t draw has less weight the further out it is (Kent, Tyler and Vardi 1994).
    """
    dim = draws.shape[-1]
    weight, mass = responsibility, responsibility.sum(-1)
    if not df.isinf().all():
        ratio = (1 / df)[:, None, None]
        weight = responsibility * (1 + ratio * dim) / (1 + ratio * distance)
    alive = mass >= MIN_DRAWS_PER_COMPONENT * (dim + 1)
    alive = alive | (mass == mass.amax(-1, keepdim=True))
    total = torch.where(alive, weight.sum(-1), 1.0)[..., None, None]
    loc = (weight @ draws).unsqueeze(2) / total
    centered = draws.unsqueeze(1) - loc
    covariance = (weight.unsqueeze(-1) * centered).mT @ centered / total
    eye = torch.eye(dim, dtype=draws.dtype, device=draws.device)
    covariance = torch.where(alive[..., None, None], covariance + _ridge(draws) * eye, eye)
    log_weights = torch.where(alive, mass, 0.0).log()
    return Mixture(log_weights.log_softmax(-1), loc.squeeze(2), _cholesky(covariance), df)


def _cholesky(covariance: Tensor) -> Tensor:
    """Factorize; where rounding leaves a matrix without a factor, only its diagonal counts."""
    scale_tril, failed = torch.linalg.cholesky_ex(covariance)
    if not failed.any():
        return scale_tril
    uncorrelated = covariance.diagonal(dim1=-2, dim2=-1).sqrt().diag_embed()
    return torch.where(failed[..., None, None] > 0, uncorrelated, scale_tril)


def component_log_joint(mixture: Mixture, value: Tensor) -> tuple[Tensor, Tensor]:
    """
    Log density of each component times its weight, and squared Mahalanobis distances: ``(batch,
    component, N)``.
    """
    dim = value.shape[-1]
    centered = (value.unsqueeze(1) - mixture.loc.unsqueeze(2)).mT
    distance = (
        torch.linalg.solve_triangular(mixture.scale_tril, centered, upper=False).square().sum(-2)
    )
    log_volume = mixture.scale_tril.diagonal(dim1=-2, dim2=-1).log().sum(-1)
    log_kernel = _log_kernel(distance, mixture.df[:, None, None], dim)
    return (mixture.log_weights - log_volume).unsqueeze(-1) + log_kernel, distance


def _log_kernel(distance: Tensor, df: Tensor, dim: int) -> Tensor:
    """Log density of a standard Gaussian or Student-t at squared distances from its center."""
    gaussian = -(distance + dim * math.log(2 * math.pi)) / 2
    if df.isinf().all():
        return gaussian
    finite_df = torch.where(df.isinf(), 1.0, df)
    student = (
        torch.lgamma((finite_df + dim) / 2)
        - torch.lgamma(finite_df / 2)
        - dim / 2 * (finite_df * math.pi).log()
        - (finite_df + dim) / 2 * (distance / finite_df).log1p()
    )
    return torch.where(df.isinf(), gaussian, student)


def _bic(mixture: Mixture, draws: Tensor, effective_size: Tensor) -> Tensor:
    """
    Bayesian information criterion with the effective number of draws, of shape ``(batch,)``: small
    is good.
    """
    dim = draws.shape[-1]
    num_alive = mixture.log_weights.isfinite().sum(-1)
    num_parameters = num_alive * (1 + dim + dim * (dim + 1) / 2) - 1
    log_likelihood = component_log_joint(mixture, draws)[0].logsumexp(1).mean(-1)
    return num_parameters * effective_size.log() - 2 * effective_size * log_likelihood


def _padded(mixture: Mixture, num_components: int) -> Mixture:
    """The same mixture with more components, all but the first ones of weight zero."""
    missing = num_components - mixture.loc.shape[1]
    eye = torch.eye(mixture.loc.shape[-1], dtype=mixture.loc.dtype, device=mixture.loc.device)
    return Mixture(
        pad(mixture.log_weights, (0, missing), value=-math.inf),
        pad(mixture.loc, (0, 0, 0, missing)),
        torch.cat([mixture.scale_tril, eye.expand(len(mixture.loc), missing, -1, -1)], 1),
        mixture.df,
    )


def _ridge(draws: Tensor) -> float:
    """Smallest variance of a component, relative to that of all draws."""
    return 10 * torch.finfo(draws.dtype).eps
