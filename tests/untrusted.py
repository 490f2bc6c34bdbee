"""Runs so short, or so wrong on purpose, that they say so of themselves."""

import pytest


def untrusted(finding="too few draws"):
    """
    Expect the one warning of a run: that its draws are not to be trusted, because of a finding.

    :param finding: its name; runs of fewer than 16 draws in a chain have too few to diagnose.
    """
    return pytest.warns(UserWarning, match=rf"not to be trusted: (.*; )?{finding}: ")
