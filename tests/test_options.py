"""A misspelt option is refused in the name of what was called, with the name that was meant."""

import pytest

from pyro_tkam._checks import options
from pyro_tkam.infer import MALA, ULA, AutoMALA, EnsembleHMC
from pyro_tkam.models import TKAM, TiltedPrior
from pyro_tkam.nn import KAN


def model() -> None:
    """Do nothing: it is never run."""


CALLS = {
    "EnsembleHMC": (lambda: EnsembleHMC(model, target_accept=0.9), "target_accept_prob"),
    "MALA": (lambda: MALA(model, max_plate_nestin=1), "max_plate_nesting"),
    "AutoMALA": (lambda: AutoMALA(model, standardze=True), "standardize"),
    "ULA": (lambda: ULA(model, stepsize=0.1), "step_size"),
    "KAN": (lambda: KAN([2, 1], grid=5), "grid_size"),
    "TiltedPrior": (lambda: TiltedPrior(2, grid=5), "grid_size"),
    "TKAM.kart": (lambda: TKAM.kart(2, latent=2), "latent_dim"),
    "TKAM.mixture": (lambda: TKAM.mixture(2, learn_noise=True), "learned_noise"),
    "TKAM.deep": (lambda: TKAM.deep(2, standardze=True), "standardized"),
    "TKAM.autoregressive": (lambda: TKAM.autoregressive(2, block=2), "blocks"),
}


@pytest.mark.parametrize("name", CALLS)
def test_a_misspelt_option_is_refused_with_the_closest_name(name: str) -> None:
    call, meant = CALLS[name]
    with pytest.raises(TypeError, match=rf"options of {name} must be .*; did you mean '{meant}'\?"):
        call()


def test_an_option_like_none_is_refused_without_a_guess() -> None:
    with pytest.raises(TypeError, match=r"options of KAN must be among .*, got 'xyzzy'$"):
        KAN([2, 1], xyzzy=1)


def test_options_that_are_passed_on_are_taken() -> None:
    assert KAN([2, 1], grid_size=4, noise_scale=0.1, degree=2).widths == [2, 1]
    assert TKAM.kart(2, latent_dim=2, degree=2, learned_noise=True)(size=1).shape == (1, 2)
    assert EnsembleHMC(model, num_unadjusted=3).num_unadjusted == 3


def test_only_options_of_inner_callables_count() -> None:
    def outer(size: int, **more: int) -> None: ...

    def inner(data: int, width: int = 1) -> None: ...

    options("outer", ["size", "width"], outer, inner)
    with pytest.raises(TypeError, match="got 'data'"):
        options("outer", ["data"], outer, inner)
