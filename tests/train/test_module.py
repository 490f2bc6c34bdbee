"""Any Pyro model, guide and objective in Lightning."""

import lightning.pytorch as lightning
import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import RenyiELBO, ReweightedWakeSleep, Trace_ELBO, TraceGraph_ELBO
from pyro.infer.autoguide import AutoNormal
from pyro.nn import PyroModule, PyroParam
from torch.distributions import constraints
from torch.utils.data import TensorDataset

from pyro_tkam.datasets.flow import gaussian_fields, solve_darcy
from pyro_tkam.infer import ImportanceMLE
from pyro_tkam.models import TKAM, GaussianLikelihood, LatentGenerator, TiltedPrior
from pyro_tkam.train import ELBOTraining, fit
from pyro_tkam.train.batches import SeededBatches


class Measured(PyroModule):
    """
    ``x ~ N(z, 1)`` with ``z ~ N(loc, scale)``: the evidence is that of N(loc, sqrt(1 + scale²)).
    """

    def __init__(self, loc=0.0):
        super().__init__()
        self.loc = torch.nn.Parameter(torch.tensor(loc))
        self.scale = PyroParam(torch.tensor(1.0), constraints.positive)

    def forward(self, x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(self.loc, self.scale))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x[:, 0])


class Global(PyroModule):
    """One location for all data, known by conjugacy."""

    def forward(self, x, size):
        z = pyro.sample("z", dist.Normal(0.0, 1.0))
        with pyro.plate("data", size, subsample=torch.arange(len(x))):
            pyro.sample("x", dist.Normal(z, 1.0), obs=x[:, 0])


def test_every_parameter_of_a_tkam_moves_and_the_loss_falls(tmp_path):
    pyro.set_rng_seed(0)
    x = 0.5 + 0.1 * torch.randn(60, 3)
    model = TKAM.kart(
        3, latent_dim=2, coupling="shared", reference="learnable_gaussian", grid_size=5
    )
    before = {name: value.clone() for name, value in model.named_parameters()}
    fit(
        ELBOTraining(model, ImportanceMLE(30), size=60),
        x,
        tmp_path,
        updates=60,
        batch_size=20,
        progress=False,
    )
    assert [
        name for name, value in model.named_parameters() if torch.equal(value, before[name])
    ] == []
    lines = (tmp_path / "metrics.csv").read_text().splitlines()
    assert lines[0] == "update,loss,ess"
    losses = [float(line.split(",")[1]) for line in lines[1:]]
    assert sum(losses[-10:]) < sum(losses[:10])


def test_the_loss_is_the_mean_evidence(tmp_path):
    pyro.set_rng_seed(0)
    x = torch.randn(50, 1)
    module = ELBOTraining(Measured(), ImportanceMLE(20_000))
    exact = -dist.Normal(0.0, 2**0.5).log_prob(x).mean()
    # 3 standard errors at these draws
    assert float(module._loss(x).detach()) == pytest.approx(float(exact), abs=0.03)


def test_two_models_of_one_class_do_not_share_parameters(tmp_path):
    x = torch.full((4, 1), 3.0)
    first, second = Measured(loc=-1.0), Measured(loc=5.0)
    for model in (first, second):
        fit(
            ELBOTraining(model, ImportanceMLE(10)),
            x,
            tmp_path / str(id(model)),
            updates=2,
            batch_size=4,
            progress=False,
        )
    assert first.loc.item() < 0 < 4 < second.loc.item()
    assert first.scale.item() != second.scale.item()
    assert len(pyro.get_param_store()) == 0


@pytest.mark.slow
def test_a_guide_of_a_mini_batched_model_finds_the_posterior(tmp_path):
    pyro.set_rng_seed(0)
    x = 1.0 + torch.randn(200, 1)
    model = Global()
    guide = AutoNormal(model)
    module = ELBOTraining(
        model, Trace_ELBO(), guide, size=200, optimizer=lambda p: torch.optim.Adam(p, lr=0.05)
    )
    fit(module, x, tmp_path, updates=400, batch_size=50, progress=False)
    # posterior sd .07
    assert float(guide.median()["z"]) == pytest.approx(float(x.sum() / 201), abs=0.1)


def test_it_works_in_any_lightning_trainer(tmp_path):
    model = Measured()
    batches = SeededBatches(TensorDataset(torch.ones(8, 1)), batch_size=4, updates=2)
    trainer = lightning.Trainer(
        accelerator="cpu",
        max_epochs=1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=tmp_path,
    )
    trainer.fit(ELBOTraining(model, ImportanceMLE(10)), batches)
    assert model.loc.item() > 0


def darcy_residual(fields):
    """∇·(a ∇u) + 1 at the inner points, by finite differences with harmonic means on the faces."""
    a, u = fields.unbind(1)

    def divergence(a, u):
        face = 2 * a[:, 1:] * a[:, :-1] / (a[:, 1:] + a[:, :-1])
        return (face * u.diff(dim=1)).diff(dim=1)[:, :, 1:-1] * (u.shape[-1] - 1) ** 2

    return divergence(a, u) + divergence(a.mT, u.mT).mT + 1


def trained_on_flows(weight):
    """
    Train on nine by nine flows; return the model's mean squared residual and its first gradient of
    the generator.
    """
    pyro.set_rng_seed(0)
    permeability = gaussian_fields(16, 9).exp()
    fields = torch.stack([permeability, solve_darcy(permeability)], 1).float()
    network = torch.nn.Sequential(torch.nn.Linear(3, 162), torch.nn.Softplus())
    generator = LatentGenerator(network, (2, 9, 9), mean=0.0, spread=1.0)
    model = TKAM(TiltedPrior(3, "gaussian"), generator, GaussianLikelihood(0.5, event_dim=3))

    def penalty(model):
        return weight * darcy_residual(model.generate(8, differentiable=True)).square().mean()

    training, first = ELBOTraining(model, ImportanceMLE(10), penalty=penalty), None
    training.initialize(fields)
    optimizer = torch.optim.Adam(training.parameters(), lr=0.02)
    for _ in range(60):
        optimizer.zero_grad()
        training._loss(fields).backward()
        first = network[0].weight.grad.clone() if first is None else first
        optimizer.step()
    return float(darcy_residual(model.generate(500)).square().mean()), first


@pytest.mark.slow
def test_a_penalty_on_what_is_generated_trains_the_generator():
    """
    The residual of Darcy's law falls well below that of a run without; wrong version: draws without
    gradients.
    """
    (free, data_only), (held, with_law) = (trained_on_flows(weight) for weight in (0.0, 0.01))
    assert held < 0.5 * free
    assert (with_law - data_only).norm() > 0.1 * data_only.norm()


def test_what_cannot_be_trained_is_named():
    class Bare(PyroModule):
        def forward(self, x):
            loc = pyro.param("loc", torch.tensor(0.0))
            with pyro.plate("data", len(x)):
                z = pyro.sample("z", dist.Normal(loc, 1.0))
                pyro.sample("x", dist.Normal(z, 1.0), obs=x[:, 0])

    x = torch.zeros(4, 1)
    with pytest.raises(
        TypeError, match=r"model must be an nn\.Module such as a PyroModule, got function"
    ):
        ELBOTraining(lambda x: x, ImportanceMLE())
    with pytest.raises(
        TypeError, match=r"guide must be an nn\.Module such as a PyroModule, got int"
    ):
        ELBOTraining(Measured(), ImportanceMLE(), 3)
    with pytest.raises(TypeError, match=r"elbo must be a pyro\.infer\.ELBO, got ABCMeta"):
        ELBOTraining(Measured(), ImportanceMLE)
    for elbo, instead in (
        (RenyiELBO(), "ImportanceWeightedELBO"),
        (ReweightedWakeSleep(), "WakeSleepMLE"),
        (TraceGraph_ELBO(), "Trace_ELBO"),
    ):
        name = type(elbo).__name__
        with pytest.raises(
            TypeError, match=f"elbo must have a differentiable_loss, got {name}; .*{instead}"
        ):
            ELBOTraining(Measured(), elbo)
    with pytest.raises(
        ValueError, match=r"model must have its parameters in.*, got \['loc'\] from pyro\.param"
    ):
        ELBOTraining(Bare(), ImportanceMLE()).initialize(x)
    with pytest.raises(TypeError, match=r"data must have the dtype of the.*, got torch\.float64"):
        ELBOTraining(Measured(), ImportanceMLE()).initialize(x.double())
    with pytest.raises(
        ValueError, match="model must have a parameter that requires a gradient, got none"
    ):
        ELBOTraining(Global(), ImportanceMLE(), size=4).initialize(x)
