"""Coalitions drawn from the Shapley kernel."""

from __future__ import annotations

import torch

from apportion.protocols.methods import Coalitions
from apportion_plugins.samplers.tables import inner_coalitions

__all__ = ["KernelSampler"]

TRIES = 20
"""Maximum number of draws per evaluation of the budget; new coalitions become rare once most are drawn."""


class KernelSampler:
    """Draws pairs of a coalition and its complement; size s has probability ∝ 1 / (s (n − s)), members are uniform.

    The sampling of KernelSHAP (Lundberg and Lee 2017) with the pairing of Covert and Lee (arXiv 2012.01536): with
    replacement and equal weights. A larger budget with the same seed draws the same pairs and more.
    """

    name = "kernel"
    estimands = ("Shapley value",)

    def sample(self, n_features: int, budget: int, rng: torch.Generator) -> Coalitions:
        """Draw coalitions other than the empty and the full one, with weights for Shapley values; rows may repeat.

        Raises:
            BudgetError: the budget is below 2, or there is only one feature.
        """
        everything = inner_coalitions(n_features, budget)
        if everything is not None:
            return everything
        sizes = torch.arange(1, n_features)
        probability = 1 / (sizes * (n_features - sizes)).double()
        seen: set[bytes] = set()
        rows: list[torch.Tensor] = []
        for _ in range(TRIES * budget):
            size = int(sizes[torch.multinomial(probability, 1, generator=rng)])
            row = torch.zeros(n_features, dtype=torch.bool)
            row[torch.randperm(n_features, generator=rng)[:size]] = True
            new = {bytes(row.tolist()), bytes((~row).tolist())} - seen
            if len(seen) + len(new) > budget:
                break
            seen |= new
            rows += [row, ~row]
        mask = torch.stack(rows)
        weight = torch.ones(len(mask), dtype=torch.float64)
        return Coalitions(mask, weight, torch.arange(len(mask)) // 2)
