"""
Every test and every example starts with an empty parameter store and the same seed, whatever ran
before it.
"""

import pyro
import pytest


@pytest.fixture(autouse=True)
def fresh_start() -> None:
    """Clear Pyro's global store and seed it before a test."""
    pyro.clear_param_store()
    pyro.set_rng_seed(0)
