"""Laws of a distribution at home in Pyro, after the checks that Pyro runs on its own."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import SVI, Predictive, Trace_ELBO, TraceEnum_ELBO, autoguide, config_enumerate
from pyro.ops.integrator import potential_grad
from scipy.stats import kstest
from torch._subclasses import FakeTensorMode
from torch.distributions import biject_to
from torch.overrides import TorchFunctionMode

Make = Callable[..., dist.TorchDistribution]

# Laws of every distribution.


class WithoutDrivers(TorchFunctionMode):
    """
    Lets fake tensors of a device be indexed and moved by a torch that was built without that
    device's drivers.
    """

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if func is torch.Tensor.__getitem__ and args[0].device.type == "cuda":
            return _index(*args)
        if func is torch.as_tensor and isinstance(args[0], np.ndarray):
            return torch.tensor(args[0].tolist(), **kwargs)
        if func is torch.Tensor.to and isinstance(args[1], torch.Tensor):
            return torch.empty(args[0].shape, dtype=args[1].dtype, device=args[1].device)
        if func is torch.Tensor.contiguous:
            return args[0].clone(memory_format=torch.contiguous_format)
        return func(*args, **kwargs)


def _index(tensor: torch.Tensor, index: object) -> torch.Tensor:
    index = index if isinstance(index, tuple) else (index,)
    if ... in index:
        place = index.index(...)
        missing = tensor.dim() - sum(part is not None for part in index) + 1
        index = (*index[:place], *[slice(None)] * missing, *index[place + 1 :])
    dim = 0
    for part in index:
        if part is None:
            tensor, dim = tensor.unsqueeze(dim), dim + 1
        elif isinstance(part, slice):
            start, stop, _ = part.indices(tensor.shape[dim])
            tensor, dim = tensor.narrow(dim, start, max(stop - start, 0)), dim + 1
        else:
            tensor = tensor.select(dim, part)
    return tensor


def draws_lie_in_the_support(make: Make, dtype: torch.dtype) -> None:
    fn = make(dtype)
    assert fn.support.check(fn.sample((100,))).all()


def shapes_are_those_of_torch(make: Make, dtype: torch.dtype) -> None:
    fn = make(dtype)
    z = fn.sample((4, 3))
    assert z.shape == (4, 3, *fn.batch_shape, *fn.event_shape)
    assert fn.log_prob(z).shape == (4, 3, *fn.batch_shape)
    assert z.dtype == fn.log_prob(z).dtype == dtype
    assert fn.shape((4,)) == z.shape[:1] + fn.batch_shape + fn.event_shape


def inferred_shapes_are_right(make: Make, dtype: torch.dtype) -> None:
    fn = make(dtype)
    if not make.shapes:
        pytest.skip("the shapes of its arguments do not tell which dimensions are the event's")
    assert type(fn).infer_shapes(**make.shapes) == (fn.batch_shape, fn.event_shape)


def values_of_a_wrong_shape_are_refused(make: Make, dtype: torch.dtype) -> None:
    fn = make(dtype)
    z = fn.sample()
    wrong = torch.cat([z, z, z], -1)
    if wrong.shape[-1] not in (1, z.shape[-1]):
        with pytest.raises((ValueError, RuntimeError)):
            fn.log_prob(wrong)


def expansion_shares_and_keeps_the_density(make: Make, dtype: torch.dtype) -> None:
    fn = make(dtype)
    for larger in (
        fn.expand_by((2,)),
        fn.expand((2, *fn.batch_shape)),
        fn.expand_by((2,)).expand((4, 2, *fn.batch_shape)),
    ):
        assert larger.event_shape == fn.event_shape
        z = larger.sample((3,))
        assert z.shape == (3, *larger.batch_shape, *fn.event_shape)
        torch.testing.assert_close(larger.log_prob(z), fn.log_prob(z))
        assert z.flatten()[0] != z.flatten()[-1]
    expanded = fn.expand((2, *fn.batch_shape))
    for shape in ((), (7,), (3, *fn.batch_shape)):
        with pytest.raises((ValueError, RuntimeError)):
            expanded.expand(shape)


def events_and_masks_are_those_of_pyro(make: Make, dtype: torch.dtype) -> None:
    fn = make(dtype)
    z, count = fn.sample(), len(fn.batch_shape)
    event = fn.to_event(count)
    assert event.batch_shape == ()
    torch.testing.assert_close(event.log_prob(z), fn.log_prob(z).sum())
    mask = torch.arange(fn.batch_shape.numel()).reshape(fn.batch_shape) % 2 == 0
    torch.testing.assert_close(fn.mask(mask).log_prob(z), torch.where(mask, fn.log_prob(z), 0))


def copies_are_independent_and_equal(make: Make, dtype: torch.dtype) -> None:
    fn = make(dtype)
    z = fn.sample((3,))
    for other in (
        copy.deepcopy(fn),
        pickle.loads(pickle.dumps(fn)),
        pickle.loads(pickle.dumps(fn.expand_by((2,)))),
    ):
        torch.testing.assert_close(
            other.log_prob(z[:, None] if other.batch_shape != fn.batch_shape else z).squeeze(),
            _like(fn, other, z),
        )


def _like(fn, other, z):
    value = fn.log_prob(z)
    return (
        value
        if other.batch_shape == fn.batch_shape
        else value[:, None].expand(-1, 2, *fn.batch_shape).squeeze()
    )


def unconstrained_coordinates_cover_the_support(make: Make, dtype: torch.dtype) -> None:
    fn = make(dtype)
    transform = biject_to(fn.support)
    z = fn.sample((5,))
    torch.testing.assert_close(transform(transform.inv(z)), z, atol=1e-3, rtol=1e-3)
    assert fn.log_prob(transform(torch.full_like(z, 3.0))).isfinite().all()


def log_prob_maps_and_differentiates_twice(make: Make, dtype: torch.dtype) -> None:
    fn = make(dtype)
    z = fn.sample((4,)).detach()
    slope = torch.func.grad(lambda x: fn.log_prob(x).sum())
    mapped = torch.func.vmap(slope)(z)
    torch.testing.assert_close(mapped, torch.stack([slope(x) for x in z]))
    curvature = torch.func.vmap(torch.func.grad(lambda x: slope(x).sum()))(z)
    assert curvature.isfinite().all()


def no_tensor_hides_on_another_device(make: Make, dtype: torch.dtype) -> None:
    with torch.no_grad(), pyro.validation_enabled(False), FakeTensorMode(), WithoutDrivers():
        fn = make(dtype, torch.device("cuda"))
        z = torch.rand((4, *fn.batch_shape, *fn.event_shape), dtype=dtype, device="cuda")
        results = [
            z,
            fn.log_prob(z),
            fn.expand_by((2,)).log_prob(z[:, None]),
            fn.to_event(len(fn.batch_shape)).log_prob(z),
        ]
        if not fn.event_shape and hasattr(fn, "quadrature_error"):
            u = torch.rand(z.shape, dtype=dtype, device="cuda")
            results += [
                fn.sample(),
                fn.rsample(),
                fn.icdf(u),
                fn.icdf(u, upper=True),
                fn.cdf(z),
                fn.mean,
                fn.variance,
                fn.entropy(),
            ]
            results += [
                fn.quadrature_error,
                fn.expectation(torch.sin),
                torch.distributions.kl_divergence(fn, fn),
            ]
        assert {(r.device.type, r.dtype) for r in results} == {("cuda", dtype)}


def draws_follow_no_default_device(make: Make, dtype: torch.dtype) -> None:
    """
    Where the default device is another, a tensor made without a device would meet real ones, or be
    the result.
    """
    fn = make(dtype)
    with torch.device("meta"):
        z = fn.sample((3,))
        results = [z, fn.log_prob(z), fn.expand_by((2,)).sample()]
        if fn.has_rsample:
            results.append(fn.rsample())
    assert {(result.device.type, result.dtype) for result in results} == {("cpu", dtype)}


def validation_is_the_users_choice(make: Make, dtype: torch.dtype) -> None:
    wrong = torch.full(make(dtype).sample().shape, torch.nan, dtype=dtype)
    with pytest.raises(ValueError, match="support"):
        make(dtype, validate_args=True).log_prob(wrong)
    make(dtype, validate_args=False).log_prob(wrong)


# What Pyro does with a site.


def _model(make: Make, dtype: torch.dtype):
    def model(data: torch.Tensor):
        fn = make(dtype)
        with pyro.plate("data", len(data), dim=-1 - len(fn.batch_shape)):
            z = pyro.sample("z", fn)
            pyro.sample(
                "x",
                dist.Normal(z, torch.ones((), dtype=dtype)).to_event(len(fn.event_shape)),
                obs=data,
            )

    return model, make(dtype).sample((6,)).detach()


def plates_subsampling_and_prediction_work(make: Make, dtype: torch.dtype) -> None:
    fn = make(dtype)

    def model():
        with pyro.plate("rows", 10, subsample_size=4, dim=-1 - len(fn.batch_shape)):
            return pyro.sample("z", fn)

    trace = pyro.poutine.trace(model).get_trace()
    trace.compute_log_prob()
    assert trace.nodes["z"]["value"].shape == (4, *fn.batch_shape, *fn.event_shape)
    assert trace.nodes["z"]["scale"] == 2.5
    drawn = Predictive(model, num_samples=3)()["z"]
    assert drawn.shape == (3, 4, *fn.batch_shape, *fn.event_shape)


def svi_with_autoguides_runs(make: Make, dtype: torch.dtype) -> None:
    pyro.clear_param_store()
    model, data = _model(make, dtype)
    svi = SVI(model, autoguide.AutoNormal(model), pyro.optim.Adam({"lr": 0.01}), Trace_ELBO())
    assert all(torch.isfinite(torch.tensor(svi.step(data))) for _ in range(3))


def enumeration_of_other_sites_works(make: Make, dtype: torch.dtype) -> None:
    pyro.clear_param_store()
    fn = make(dtype)

    @config_enumerate
    def model():
        z = pyro.sample("z", fn.to_event(len(fn.batch_shape)))
        side = pyro.sample("side", dist.Bernoulli(torch.tensor(0.5, dtype=dtype)))
        pyro.sample(
            "x",
            dist.Normal(z.sum() * (2 * side - 1), torch.ones((), dtype=dtype)),
            obs=torch.ones((), dtype=dtype),
        )

    guide = autoguide.AutoNormal(pyro.poutine.block(model, hide=["side"]))
    svi = SVI(model, guide, pyro.optim.Adam({"lr": 0.01}), TraceEnum_ELBO(max_plate_nesting=0))
    assert torch.isfinite(torch.tensor(svi.step()))


def hmc_sees_a_finite_potential(make: Make, dtype: torch.dtype) -> None:
    model, data = _model(make, dtype)
    initial, potential, _, _ = pyro.infer.mcmc.util.initialize_model(model, (data,))
    slopes, energy = potential_grad(potential, initial)
    assert energy.isfinite()
    assert all(slope.isfinite().all() for slope in slopes.values())


# Laws of distributions with a CDF.


def cdf_inverts_icdf(make: Make, dtype: torch.dtype) -> None:
    fn = make(dtype)
    u = torch.rand((50, *fn.batch_shape), dtype=dtype)
    tolerance = 1e-9 if dtype == torch.float64 else 5e-6
    torch.testing.assert_close(fn.cdf(fn.icdf(u)), u, atol=tolerance, rtol=0)
    torch.testing.assert_close(1 - fn.cdf(fn.icdf(u, upper=True)), u, atol=tolerance, rtol=0)
    ends = fn.icdf(torch.tensor([0.0, 1.0], dtype=dtype).reshape(2, *[1] * len(fn.batch_shape)))
    assert fn.support.check(ends).all()


def density_is_the_slope_of_the_cdf(make: Make, dtype: torch.dtype) -> None:
    fn = make(dtype)
    z = fn.sample((20,)).detach().requires_grad_()
    (slope,) = torch.autograd.grad(fn.cdf(z).sum(), z)
    torch.testing.assert_close(
        slope, fn.log_prob(z).exp(), atol=1e-4, rtol=1e-3 if dtype == torch.float32 else 1e-6
    )


def total_mass_is_one(make: Make, dtype: torch.dtype) -> None:
    fn = make(dtype)
    fractions = (torch.arange(20_000, dtype=dtype) + 0.5) / 20_000
    z = fn.low + (fn.high - fn.low) * fractions.reshape(-1, *[1] * len(fn.batch_shape))
    mass = ((fn.high - fn.low) * fn.log_prob(z).exp()).mean(0)
    torch.testing.assert_close(mass, torch.ones_like(mass), atol=1e-3, rtol=0)


def draws_fit_density_and_moments(make: Make, dtype: torch.dtype) -> None:
    """
    Kolmogorov-Smirnov on 5,000 draws a batch element, and moments to five standard errors; false
    alarms: 1e-3.
    """
    fn = make(dtype)
    z = fn.rsample((5_000,)).detach()
    u = fn.cdf(z).detach().reshape(5_000, -1)
    assert all(kstest(column.numpy(), "uniform").pvalue > 1e-4 for column in u.T)
    error = (fn.variance / 5_000).sqrt()
    assert ((z.mean(0) - fn.mean).abs() < 5 * error).all()
    assert ((z.var(0) / fn.variance - 1).abs() < 0.2).all()
    torch.testing.assert_close(fn.entropy(), -fn.log_prob(z).mean(0), atol=0.1, rtol=0)


def divergence_from_itself_is_zero(make: Make, dtype: torch.dtype) -> None:
    fn = make(dtype)
    expanded = fn.expand((2, *fn.batch_shape))
    for p, q in ((fn, fn), (expanded, fn), (fn, expanded), (expanded, expanded)):
        kl = torch.distributions.kl_divergence(p, q)
        zeros = torch.zeros(torch.broadcast_shapes(p.batch_shape, q.batch_shape), dtype=dtype)
        torch.testing.assert_close(kl, zeros, atol=1e-5, rtol=0)


def expectations_of_an_expanded_distribution_may_differ_in_its_batch(
    make: Make, dtype: torch.dtype
) -> None:
    fn = make(dtype)
    factor = torch.tensor([1.0, -2.0], dtype=dtype).reshape(2, *[1] * len(fn.batch_shape))
    found = fn.expand((2, *fn.batch_shape)).expectation(lambda z: factor * z)
    torch.testing.assert_close(found, factor * fn.mean)


def draws_map_and_differentiate_twice(make: Make, dtype: torch.dtype) -> None:
    fn = make(dtype)
    u = torch.rand((4, *fn.batch_shape), dtype=dtype) * 0.9 + 0.05
    slope = torch.func.vmap(torch.func.grad(lambda v: fn.icdf(v).sum()))(u)
    torch.testing.assert_close(slope, 1 / fn.log_prob(fn.icdf(u)).exp(), atol=1e-3, rtol=2e-3)
    assert (
        torch.func.vmap(
            torch.func.grad(lambda v: torch.func.grad(lambda w: fn.icdf(w).sum())(v).sum())
        )(u)
        .isfinite()
        .all()
    )


ALL = [
    draws_lie_in_the_support,
    shapes_are_those_of_torch,
    inferred_shapes_are_right,
    values_of_a_wrong_shape_are_refused,
    expansion_shares_and_keeps_the_density,
    events_and_masks_are_those_of_pyro,
    copies_are_independent_and_equal,
    unconstrained_coordinates_cover_the_support,
    log_prob_maps_and_differentiates_twice,
    no_tensor_hides_on_another_device,
    draws_follow_no_default_device,
    validation_is_the_users_choice,
    plates_subsampling_and_prediction_work,
    svi_with_autoguides_runs,
    enumeration_of_other_sites_works,
    hmc_sees_a_finite_potential,
]
WITH_CDF = [
    cdf_inverts_icdf,
    density_is_the_slope_of_the_cdf,
    total_mass_is_one,
    draws_fit_density_and_moments,
    divergence_from_itself_is_zero,
    expectations_of_an_expanded_distribution_may_differ_in_its_batch,
    draws_map_and_differentiate_twice,
]
