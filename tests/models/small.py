"""Small models of every kind, of rows of a few numbers."""

from torch import nn

from pyro_tkam.models import (
    TKAM,
    CategoricalLikelihood,
    GaussianLikelihood,
    Heads,
    LabeledPrior,
    LabeledTKAM,
    MixturePrior,
    MultimodalTKAM,
    TiltedPrior,
)

COUPLINGS = {
    "shared": lambda: TKAM.kart(6, 2, coupling="shared"),
    "independent": lambda: TKAM.kart(6, 2),
    "mixture": lambda: TKAM.mixture(6, 4, 3),
    "deep": lambda: TKAM.deep(6, 4),
}


def labeled(width: int) -> LabeledTKAM:
    """Three labels."""
    return LabeledTKAM(
        LabeledPrior(3, 2, grid_size=5), nn.Linear(2, width), GaussianLikelihood(0.5)
    )


def multimodal(width: int) -> MultimodalTKAM:
    """An "image" and one of three labels."""
    likelihoods = {"image": GaussianLikelihood(0.3), "label": CategoricalLikelihood(event_dim=0)}
    heads = Heads({"image": nn.Linear(2, width), "label": nn.Linear(2, 3)})
    return MultimodalTKAM(MixturePrior(TiltedPrior((2, 2), grid_size=5)), heads, likelihoods)
