"""What a verdict says beside its findings."""

import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import Tensor

from pyro_tkam.infer import SMC, EnsembleHMC, VectorizedMCMC


@pytest.mark.parametrize("given", [False, True])
def test_draws_of_a_prior_say_so(given: bool) -> None:
    """As where someone forgot to pass the data."""

    def model(y: Tensor | None = None) -> None:
        z = pyro.sample("z", dist.Normal(0.0, 1.0))
        k = pyro.sample("k", dist.Bernoulli(0.5), infer={"enumerate": "parallel"})
        if y is not None:
            pyro.sample("y", dist.Normal(z + k, 1.0), obs=y)

    data = (torch.tensor(0.3),) if given else ()
    pyro.set_rng_seed(0)
    chains = VectorizedMCMC(EnsembleHMC(model), 100, disable_progbar=True)
    chains.run(*data)
    smc = SMC(model, 256, disable_progbar=True)
    smc.run(*data)
    for verdict in (chains.verdict, smc.verdict):
        assert verdict.trusted
        told = [note for note in verdict.notes if "no site is observed" in note]
        assert len(told) == (not given)


def test_data_of_a_model_that_observes_nothing_are_told() -> None:
    def model(x: Tensor, y: Tensor | None = None) -> None:
        z = pyro.sample("z", dist.Normal(0.0, 1.0))
        with pyro.plate("data", len(x)):
            pyro.sample("y", dist.Normal(z * x, 1.0), obs=y)

    x = torch.linspace(-1, 1, 4)
    for run in (
        VectorizedMCMC(EnsembleHMC(model), 100, disable_progbar=True),
        SMC(model, 256, disable_progbar=True),
    ):
        with pytest.warns(UserWarning, match="observes none of its sites, so these are draws of t"):
            run.run(x)
        run.run(x, x)
        assert run.verdict.trusted
