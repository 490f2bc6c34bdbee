"""Models with factors that are marked as prior: their evidence is a ratio of two."""

from __future__ import annotations

from typing import Any

from pyro.poutine.messenger import Messenger

from pyro_tkam.infer.model.requirements import Checked
from pyro_tkam.infer.model.sites import sample_sites


def has_prior_factors(checked: Checked) -> bool:
    """Tell whether observed sites are marked ``infer={"is_prior": True}``."""
    return any(_is_marked(site) for _, site in sample_sites(checked.trace))


class PriorFactorsAsData(Messenger):
    """
    Makes factors that are marked as prior ones of the likelihood.

    ``p(x) = ∫ p(x|z) f(z) p(z) dz / ∫ f(z) p(z) dz`` with a factor ``f`` of the prior: the first is
    the evidence of this model, the second that of it without data.

    :param hide_data: hide all other data.
    """

    def __init__(self, hide_data: bool) -> None:
        super().__init__()
        self.hide_data = hide_data

    def _pyro_sample(self, msg: Any) -> None:
        if _is_marked(msg):
            msg["infer"] = {**msg["infer"], "is_prior": False}
        elif msg["is_observed"] and self.hide_data:
            msg["mask"] = False


def _is_marked(site: Any) -> bool:
    return bool(site["is_observed"] and site["infer"].get("is_prior"))
