"""
Samplers replace the package's own models by graphs: none of their checks may ask a traced tensor
for its value.
"""

import pyro
import pytest
import torch
from pyro import poutine

from pyro_tkam.distributions import JointEnergy
from pyro_tkam.infer.model.density import ModelDensity
from tests.models.small import COUPLINGS, labeled, multimodal

ROWS = torch.linspace(0, 1, 24).reshape(4, 6)
LABELS = torch.tensor([0, 1, -1, 2])
MODELS = {name: (make, (ROWS,)) for name, make in COUPLINGS.items()} | {
    "labeled": (lambda: labeled(6), (ROWS, LABELS)),
    "multimodal": (
        lambda: multimodal(6),
        ({"image": ROWS, "label": LABELS.clamp_min(0)}, {"label": LABELS >= 0}),
    ),
}


@pytest.mark.parametrize("name", MODELS)
def test_a_model_becomes_a_graph(name):
    pyro.set_rng_seed(0)
    make, args = MODELS[name]
    density = ModelDensity(make().requires_grad_(False).eval(), args, standard_normal=True)
    position = density.draw_start(8)
    split = density.split(position)
    assert density._split.failure is None
    for got, expected in zip(
        (split.log_prior, split.log_likelihood), density.log_terms(position), strict=True
    ):
        torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-4)


def test_chains_of_latents_draw_no_negatives(monkeypatch):
    """
    Gradients in latents need none, and would pay sixty Langevin steps for them; scoring a model
    needs some.
    """
    drawn = []

    def draw(self, count, probe):
        drawn.append(count)
        return self.reference.sample((count,))

    monkeypatch.setattr(JointEnergy, "_draw_negatives", draw)
    make, args = MODELS["deep"]
    model = make()
    density = ModelDensity(model, args)
    drawn.clear()  # a first run finds the sites
    density.point(density.draw_start(2))
    assert not drawn
    poutine.trace(model).get_trace(*args)
    assert drawn
