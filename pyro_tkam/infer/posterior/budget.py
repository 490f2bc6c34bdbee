"""How many evaluations of a model may still be made."""

from __future__ import annotations

import math
from dataclasses import dataclass

ADVICE = "raise max_evaluations, give a guide, or use another parameterization"
"""What the default method has options for, where its estimate is not trusted."""


class BudgetSpentError(ValueError):
    """The allowed number of evaluations is used up."""


@dataclass
class Budget:
    """A number of evaluations of likelihood or gradient, and how many of them have been used.

    :param total: how many evaluations may be made in all.
    :param spent: how many have been made.
    :param kept: how many are reserved for later.

    >>> budget = Budget(1000)
    >>> budget.spend(200)
    >>> budget.left, budget.affords(500, each=2), budget.affords(500, each=2, share=0.5)
    (800, 400, 200)
    """

    total: float = math.inf
    spent: int = 0
    kept: int = 0

    @property
    def left(self) -> float:
        """How many evaluations may still be made, without the reserved ones."""
        return self.total - self.spent - self.kept

    def spend(self, evaluations: int) -> None:
        """Count evaluations."""
        self.spent += evaluations

    def check(self, evaluations: int) -> None:
        """Raise an error if fewer evaluations are left than something may take.

        :param evaluations: the largest number that it may take.
        :raises BudgetSpentError: in that case.
        """
        if self.left < evaluations:
            needed = self.spent + self.kept + evaluations
            raise BudgetSpentError(
                f"max_evaluations must be greater than {needed} for this model, got {self.total}"
            )

    def affords(self, wanted: int, *, each: float = 1, share: float = 1.0) -> int:
        """Return how many of ``wanted`` things a share of the remaining evaluations allows.

        :param wanted: the largest number.
        :param each: evaluations per thing.
        :param share: share of the remaining evaluations.
        """
        return max(0, int(min(wanted, share * self.left / each)))
