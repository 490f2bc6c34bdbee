"""Optional dependencies: what is missing is named, and the core loads none of them."""

import subprocess
import sys

import pytest

from pyro_tkam._optional import needs


def test_a_missing_package_names_its_extra():
    with (
        pytest.raises(ImportError, match=r"absent_package is not installed: pip install 'pyro-tkam\[plots\]'"),
        needs("plots"),
    ):
        import absent_package  # noqa: F401


def test_a_module_of_ours_that_is_missing_is_a_bug_not_an_extra():
    with pytest.raises(ModuleNotFoundError), needs("plots"):
        import pyro_tkam.absent  # noqa: F401


@pytest.mark.slow
def test_the_core_and_the_command_line_load_nothing_heavy():
    light = "import pyro_tkam.__main__; heavy = {'torch', 'lightning', 'matplotlib'}"
    core = "import pyro_tkam.models, pyro_tkam.infer, pyro_tkam.plots, pyro_tkam.datasets, pyro_tkam.train; heavy = {'lightning', 'matplotlib', 'sklearn', 'mlxtend'}"
    for code in (light, core):
        check = f"{code}; import sys; sys.exit(str(heavy & set(sys.modules)) if heavy & set(sys.modules) else 0)"
        subprocess.run([sys.executable, "-W", "ignore", "-c", check], check=True)
