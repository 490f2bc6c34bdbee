"""Every test and every example starts with an empty parameter store, whatever ran before it."""

import pyro
import pytest


@pytest.fixture(autouse=True)
def empty_parameter_store() -> None:
    """Clear Pyro's global store before a test."""
    pyro.clear_param_store()
