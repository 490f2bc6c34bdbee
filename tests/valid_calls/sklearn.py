"""One small valid call of everything public in sklearn, whose data scikit-learn checks itself."""

from __future__ import annotations

from typing import Any

import numpy as np

from pyro_tkam.sklearn import KANClassifier, KANRegressor
from tests.valid_calls.call import Call

RECORDS = ()
X = np.linspace(-1.0, 1.0, 12).reshape(6, 2)


def fitted(estimator: type, y: Any) -> Call:
    """Return a call that makes an estimator and fits it."""
    options = {
        "hidden": (2,),
        "grid_size": 2,
        "degree": 2,
        "penalty": 0.0,
        "optimizer": "adam",
        "steps": 1,
        "batch_size": 4,
        "grid_updates": 1,
        "random_state": 0,
    }
    return Call(
        lambda **given: estimator(**given).fit(X, y), options, also=("widths",), expensive=True
    )


def calls() -> dict[str, Call]:
    return {
        "KANRegressor": fitted(KANRegressor, X[:, 0]),
        "KANClassifier": fitted(KANClassifier, X[:, 0] > 0),
    }
