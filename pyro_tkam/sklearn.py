"""Networks as scikit-learn estimators: for pipelines, searches and cross-validation."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Sequence
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

from pyro_tkam._checks import sequence
from pyro_tkam._optional import needs
from pyro_tkam.nn import KAN, FitResult, KANLayer, fit
from pyro_tkam.nn.fitting import Loss
from pyro_tkam.nn.kan import Width
from pyro_tkam.nn.parse import is_variable_name
from pyro_tkam.symbolic import Formula, find_formula

with needs("sklearn"):
    from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin
    from sklearn.preprocessing import LabelEncoder, StandardScaler
    from sklearn.utils import check_random_state
    from sklearn.utils.multiclass import check_classification_targets
    from sklearn.utils.validation import check_is_fitted, validate_data

__all__ = ["KANClassifier", "KANRegressor"]

#: rows that are kept for a formula
_MOST_ROWS = 1000


class _KANEstimator(BaseEstimator):
    """What both estimators share: a network in float64 on standardized inputs."""

    def __init__(
        self,
        hidden: Sequence[Width] = (5,),
        *,
        grid_size: int = 5,
        degree: int = 3,
        penalty: float = 0.0,
        optimizer: str = "lbfgs",
        steps: int = 20,
        batch_size: int | None = None,
        grid_updates: int = 10,
        random_state: Any = None,
    ) -> None:
        self.hidden = hidden
        self.grid_size = grid_size
        self.degree = degree
        self.penalty = penalty
        self.optimizer = optimizer
        self.steps = steps
        self.batch_size = batch_size
        self.grid_updates = grid_updates
        self.random_state = random_state

    def _fit_network(self, x: Any, y: Tensor, outputs: int, loss: Loss | None) -> FitResult:
        """Make and fit the network; torch's global generator stays as it is."""
        sequence("hidden", self.hidden, "widths")
        self.scaler_ = StandardScaler().fit(x)
        seed = int(_random_state(self.random_state).randint(2**31 - 1))
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            widths = [x.shape[1], *self.hidden, outputs]
            self.network_ = KAN(widths, grid_size=self.grid_size, degree=self.degree).double()
            result = fit(
                self.network_,
                self._standardized(x),
                y,
                optimizer=self.optimizer,
                steps=self.steps,
                batch_size=self.batch_size,
                penalty=self.penalty,
                grid_updates=self.grid_updates,
                loss=loss,
            )
        thinned = slice(None, None, -(-len(x) // _MOST_ROWS))
        self._samples = (np.array(x[thinned], dtype=float), y[thinned])
        self.n_iter_ = len(result.losses) - 1
        self.fit_result_ = result
        return result

    def _standardized(self, x: Any) -> Tensor:
        return torch.as_tensor(self.scaler_.transform(x), dtype=torch.double)

    @torch.no_grad()
    def _outputs(self, x: Any) -> Any:
        """Return the network's outputs for new data, as an array."""
        check_is_fitted(self)
        x = validate_data(self, x, reset=False)
        return self.network_(self._standardized(x)).numpy()


def _random_state(seed: Any) -> np.random.RandomState:
    try:
        state: np.random.RandomState = check_random_state(seed)
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"random_state must be a seed, a RandomState or None, got {seed!r}: {error}"
        ) from error
    return state


class KANRegressor(RegressorMixin, _KANEstimator):
    """
    Regression with a Kolmogorov-Arnold network, on standardized inputs and targets.

    :ivar network_: the :class:`~pyro_tkam.nn.KAN`, in float64, in standardized units.
    :ivar scaler_: the scaler that standardizes the inputs.
    :ivar target_scaler_: the scaler that standardizes the targets.
    :ivar formula_: a :class:`~pyro_tkam.symbolic.Formula` in the units of the data.
    :ivar fit_result_: see :class:`~pyro_tkam.nn.FitResult`.

    :param hidden: widths of the hidden layers.
    :param grid_size: of the splines.
    :param degree: of the splines.
    :param penalty: see :func:`~pyro_tkam.nn.fit`; the next parameters are described there too.
    :param optimizer: ``"lbfgs"`` or ``"adam"``.
    :param steps: number of steps.
    :param batch_size: rows per batch.
    :param grid_updates: number of times that the grids move.
    :param random_state: for the network's initialization, as in scikit-learn.

    >>> x = np.linspace(-1, 1, 100)[:, None]
    >>> y = np.sin(3 * x[:, 0])
    >>> KANRegressor(hidden=(), steps=5).fit(x, y).score(x, y) > 0.99
    True
    """

    def fit(self, X: Any, y: Any) -> Self:
        """
        Fit the network.

        :param X: inputs, shape ``(N, features)``.
        :param y: targets, shape ``(N,)`` or ``(N, outputs)``.
        """
        x, y = validate_data(self, X, y, multi_output=True, y_numeric=True)
        self.is_single_ = y.ndim == 1
        targets = np.asarray(y, dtype=float).reshape(len(y), -1)
        self.target_scaler_ = StandardScaler().fit(targets)
        scaled = torch.as_tensor(self.target_scaler_.transform(targets))
        self._fit_network(x, scaled, targets.shape[1], None)
        return self

    def predict(self, X: Any) -> Any:
        """
        Predict targets.

        :param X: inputs, shape ``(N, features)``.
        """
        outputs = self._outputs(X)
        values = self.target_scaler_.inverse_transform(outputs)
        return values[:, 0] if self.is_single_ else values

    @property
    def formula_(self) -> Formula:
        """
        A formula for the targets in the units of the data, with the names of the inputs if they
        have names. A name that cannot be a variable becomes one: ``"length (cm)"`` is
        ``length_cm``, ``"lambda"`` is ``lambda_``. ``formula_.symbols`` lists them in the order of
        the columns.

        See :func:`pyro_tkam.symbolic.find_formula`; for other options, pass it ``network_``. Each
        access computes the formula again. Networks with few nodes have short formulas; start with
        ``hidden=(1,)`` or ``hidden=()``.

        :raises ValueError: if an edge has no form.
        """
        check_is_fitted(self)
        x, scaled = self._samples
        standardized = find_formula(self.network_, self._standardized(x), scaled)
        if standardized.unexplained:
            raise ValueError(
                "network_ must have a form for every edge, got none for "
                f"{standardized.unexplained}; fit with fewer nodes in hidden or a larger penalty, "
                "or use find_formula, which leaves a spline on these edges"
            )
        network = _in_units(standardized.to_module(), self.scaler_, self.target_scaler_)
        targets = torch.as_tensor(self.target_scaler_.inverse_transform(scaled.numpy()))
        names = getattr(self, "feature_names_in_", None)
        return find_formula(
            network, torch.as_tensor(x), targets, names=None if names is None else _variables(names)
        )

    def __sklearn_tags__(self) -> Any:
        """Return what scikit-learn asks for: several targets are taken."""
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        return tags


def _variables(columns: Sequence[str]) -> list[str]:
    """Return a variable for each column: its own name, or the nearest that can be a variable."""
    taken = {column for column in columns if is_variable_name(column)}
    variables: list[str] = []
    for number, column in enumerate(columns, 1):
        if column in taken and column not in variables:
            variables.append(column)
            continue
        plain = unicodedata.normalize("NFKC", column)
        near = re.sub(r"\W+", "_", plain).strip("_") or f"x_{number}"
        near = near if near.isidentifier() else f"x_{near}"
        near = near if is_variable_name(near) else f"{near}_"
        if near in taken or near in variables:
            near = f"{near}_{number}"
        while near in taken or near in variables:
            near += "_"
        variables.append(near)
    return variables


def _in_units(network: KAN, inputs: Any, targets: Any) -> KAN:
    """Move the scalers of inputs and targets into a network whose edges are closed forms."""
    layers = network.layers
    affine = {place: list(entry[1]) for place, entry in layers[0].fixed.entries().items()}
    for (_, i), numbers in affine.items():
        numbers[1] -= numbers[0] * inputs.mean_[i] / inputs.scale_[i]
        numbers[0] /= inputs.scale_[i]
    _replace(layers[0], affine)
    affine = {place: list(entry[1]) for place, entry in layers[-1].fixed.entries().items()}
    for (o, _), numbers in affine.items():
        numbers[2:] = [number * targets.scale_[o] for number in numbers[2:]]
    _replace(layers[-1], affine)
    with torch.no_grad():
        layers[-1].bias *= torch.as_tensor(targets.scale_)
        layers[-1].bias += torch.as_tensor(targets.mean_)
    return network


def _replace(layer: KANLayer, affine: dict[tuple[int, int], list[float]]) -> None:
    """Give the closed forms of a layer other numbers."""
    entries = layer.fixed.entries() if layer.fixed is not None else {}
    layer.fix({place: (form, affine[place]) for place, (form, _) in entries.items()})


class KANClassifier(ClassifierMixin, _KANEstimator):
    """
    Classification with a Kolmogorov-Arnold network on standardized inputs, whose outputs are the
    logits of the classes.

    Parameters and attributes are those of :class:`KANRegressor`.

    :ivar classes_: the labels.

    >>> x = np.linspace(-1, 1, 100)[:, None]
    >>> KANClassifier(hidden=(), steps=5).fit(x, x[:, 0] > 0.2).score(x, x[:, 0] > 0.2) > 0.95
    True
    """

    def fit(self, X: Any, y: Any) -> Self:
        """
        Fit the network.

        :param X: inputs, shape ``(N, features)``.
        :param y: labels, shape ``(N,)``.
        """
        x, y = validate_data(self, X, y)
        check_classification_targets(y)
        encoder = LabelEncoder().fit(y)
        self.classes_ = encoder.classes_
        if len(self.classes_) < 2:
            raise ValueError(
                f"y must have labels of at least two classes, got one class: {self.classes_[0]!r}"
            )
        labels = torch.as_tensor(encoder.transform(y))
        loss: Callable[[Tensor, Tensor], Tensor] = torch.nn.functional.cross_entropy
        self._fit_network(x, labels, len(self.classes_), loss)
        return self

    def decision_function(self, X: Any) -> Any:
        """
        Return the logits; for two classes, the logit of the second against the first.

        :param X: inputs, shape ``(N, features)``.
        """
        logits = self._outputs(X)
        return logits[:, 1] - logits[:, 0] if len(self.classes_) == 2 else logits

    def predict_proba(self, X: Any) -> Any:
        """
        Return the probabilities of the classes, shape ``(N, classes)``.

        :param X: inputs, shape ``(N, features)``.
        """
        return torch.softmax(torch.as_tensor(self._outputs(X)), -1).numpy()

    def predict(self, X: Any) -> Any:
        """
        Predict labels.

        :param X: inputs, shape ``(N, features)``.
        """
        chosen = self._outputs(X).argmax(-1)
        return self.classes_[chosen]
