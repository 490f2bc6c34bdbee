"""
Files that ArviZ 1.x writes are read under 0.2x, and the other way round (``make test-arviz1``).
"""

import os
import subprocess

import numpy as np
import pyro
import pytest
import torch

from pyro_tkam import _arviz
from pyro_tkam.infer import bridge_evidence
from tests.infer.evidence.test_cross_bridge import regression_draws
from tests.infer.evidence_problems import assert_close, regression, regression_problem

OTHER = os.environ.get("PYRO_TKAM_ARVIZ1_PYTHON")
DATA, EXACT = regression_problem(20, 3)

pytestmark = pytest.mark.skipif(
    OTHER is None, reason="make test-arviz1 runs it: PYRO_TKAM_ARVIZ1_PYTHON names its Python"
)

WRITE = """
import sys, arviz, numpy
draws = {"posterior": {"weights": numpy.load(sys.argv[1])}}
arviz.from_dict(draws).to_netcdf(sys.argv[2], **dict(each.split("=") for each in sys.argv[3:]))
"""
READ = """
import sys, arviz, numpy
assert int(arviz.__version__.split(".")[0]) >= 1
read = arviz.from_netcdf(sys.argv[1])
numpy.save(sys.argv[2], read["posterior"]["weights"].values)
"""


def in_other(code, *arguments):
    subprocess.run([OTHER, "-c", code, *map(str, arguments)], check=True)


@pytest.fixture(scope="module")
def weights():
    pyro.set_rng_seed(0)
    return regression_draws(DATA, 4, 500).numpy()


def evidence(draws):
    pyro.set_rng_seed(0)
    return bridge_evidence(regression, *DATA, draws=draws)


@pytest.mark.parametrize("options", [(), ("engine=h5netcdf",)], ids=["default", "h5netcdf"])
def test_evidence_of_a_file_of_version_1(weights, options, tmp_path):
    np.save(tmp_path / "weights.npy", weights)
    in_other(WRITE, tmp_path / "weights.npy", tmp_path / "run.nc", *options)
    found = evidence(tmp_path / "run.nc")
    assert_close(found, EXACT)
    assert found.value == evidence({"weights": torch.tensor(weights)}).value


def test_version_1_reads_files_of_this_one(weights, tmp_path):
    _arviz.save(_arviz.from_groups({"posterior": {"weights": weights}}), tmp_path / "run.nc")
    in_other(READ, tmp_path / "run.nc", tmp_path / "read.npy")
    np.testing.assert_array_equal(np.load(tmp_path / "read.npy"), weights)
