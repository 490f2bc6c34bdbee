"""Coordinates of positive-definite matrices."""

import torch

from pyro_tkam.distributions.positive_definite import PositiveDefinite


def test_the_jacobian_is_that_of_autograd_and_the_inverse_leads_back() -> None:
    generator = torch.Generator().manual_seed(0)
    transform = PositiveDefinite()
    x = torch.randn(6, generator=generator, dtype=torch.float64)
    y = transform(x)
    row, column = torch.tril_indices(3, 3)
    jacobian = torch.autograd.functional.jacobian(lambda x: transform(x)[row, column], x)
    torch.testing.assert_close(
        transform.log_abs_det_jacobian(x, y), torch.linalg.slogdet(jacobian).logabsdet
    )
    torch.testing.assert_close(transform.inv(y), x)
    assert transform.forward_shape(torch.Size([2, 6])) == (2, 3, 3)
    assert transform.inverse_shape(torch.Size([2, 3, 3])) == (2, 6)
