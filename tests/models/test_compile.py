"""A generator that was compiled is the same function."""

import pytest
import torch

from pyro_tkam.infer import ImportanceMLE
from pyro_tkam.models import TKAM


# torch.compile itself gives it.
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor")
@pytest.mark.parametrize("basis", ["rbf", "bspline"])
def test_a_compiled_generator_has_the_same_gradients(basis):
    """Graphs are made but no code, since a machine may lack a C++ compiler."""
    torch.manual_seed(0)
    model, x = TKAM.mixture(6, latent_dim=3, num_components=2, basis=basis), torch.rand(5, 6)
    names = list(model.state_dict())
    graphs, gradients = [], []

    def backend(graph, inputs):
        graphs.append(graph)
        return graph.forward

    for _ in range(2):
        torch.manual_seed(1)
        model.zero_grad()
        ImportanceMLE(8)(model, None)(x).backward()
        gradients.append([parameter.grad.clone() for parameter in model.parameters()])
        model.generator.compile(backend=backend)
    assert graphs
    assert list(model.state_dict()) == names
    for before, after in zip(*gradients, strict=True):
        torch.testing.assert_close(after, before)
