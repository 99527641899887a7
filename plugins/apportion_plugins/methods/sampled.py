"""The quantity that a regression on a sampler's coalitions estimates."""

from __future__ import annotations

from dataclasses import replace

from apportion.protocols.methods import Estimate, Sampler

__all__ = ["named_for_sampler"]


def named_for_sampler(estimate: Estimate, sampler: Sampler, estimand: str, *, coefficient: str) -> Estimate:
    """The estimate under its method's name, or under another if the sampler does not draw for that.

    Which quantity a regression estimates depends on how its coalitions are drawn and weighted. A sampler lists what it
    draws for in ``estimands``; with any other, the coefficients are those of a regression on its coalitions.

    Args:
        estimate: the estimate.
        sampler: drew the coalitions.
        estimand: the quantity that the method is meant to estimate.
        coefficient: noun for a coefficient of its regression.
    """
    if estimand in getattr(sampler, "estimands", ()):
        return estimate
    name = str(getattr(sampler, "name", None) or type(sampler).__name__)
    note = (
        f"the sampler {name!r} does not draw for the {estimand}: values and standard errors are those of a "
        f"{coefficient} on its coalitions, which is another quantity"
    )
    return replace(estimate, estimand=f"{coefficient} (sampler {name!r})", notes=(*estimate.notes, note))
