"""Optional dependencies: what is missing is named, and the core loads none of them."""

import subprocess
import sys

import pytest

from pyro_tkam._optional import needs


def test_a_missing_package_names_its_extra():
    with (
        pytest.raises(
            ImportError, match=r"absent_package is not installed: pip install 'pyro-tkam\[plots\]'"
        ),
        needs("plots"),
    ):
        import absent_package  # noqa: F401


def test_a_module_of_ours_that_is_missing_is_a_bug_not_an_extra():
    with pytest.raises(ModuleNotFoundError), needs("plots"):
        import pyro_tkam.absent  # noqa: F401


LIGHT = "import pyro_tkam.__main__; heavy = {'torch', 'lightning', 'matplotlib'}"
CORE = """
import pyro_tkam.datasets, pyro_tkam.infer, pyro_tkam.metrics, pyro_tkam.models, pyro_tkam.plots
import pyro_tkam.train
heavy = {'lightning', 'matplotlib', 'sklearn', 'mlxtend', 'jsonargparse'}
"""


@pytest.mark.slow
@pytest.mark.parametrize("code", [LIGHT, CORE])
def test_nothing_heavy_is_imported_before_it_is_used(code):
    check = f"{code}\nimport sys\nsys.exit(', '.join(heavy & set(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", check], capture_output=True, text=True, check=False
    )
    assert done.stderr.strip() == ""
