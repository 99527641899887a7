"""Units of a prompt (pieces, tokens, turns): which of them are features, and which are always present."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import torch
from jaxtyping import Bool
from torch import Tensor

from apportion.errors import InputError
from apportion.protocols.features import Feature
from apportion_plugins.inputs.naming import unique_names

__all__ = ["Units"]


class Units:
    """The features that units make up, and coalitions of them as coalitions of units.

    Args:
        texts: of all units, in order.
        kept: units that are always present.
        baseline: what stands in a unit's place when it is absent.
        labels: what to call the units; their texts unless given.
        groups: units with the same label here are one feature of that name; each is its own unless given.

    Attributes:
        features: in the order of their first units.
        feature_of: the feature of each unit, or ``None`` for one that is kept.
        firsts: the first unit of each feature.

    Raises:
        InputError: all units are kept.
    """

    def __init__(
        self,
        texts: Sequence[str],
        kept: Collection[int],
        *,
        baseline: str = "",
        labels: Sequence[str] | None = None,
        groups: Sequence[str] | None = None,
    ) -> None:
        free = [i for i in range(len(texts)) if i not in kept]
        if not free:
            raise InputError(f"All {len(texts)} features are kept; leave at least one to attribute to.")
        labels = texts if labels is None else labels
        members: dict[object, list[int]] = {}
        for i in free:
            members.setdefault(i if groups is None else groups[i], []).append(i)
        columns = list(members.values())
        names = unique_names([labels[own[0]] for own in columns] if groups is None else [str(key) for key in members])
        numbered = unique_names(labels)
        self.features = tuple(
            Feature(
                name,
                " … ".join(texts[i] for i in own),
                members=tuple(numbered[i] for i in own) if len(own) > 1 else (),
                baseline=baseline,
            )
            for name, own in zip(names, columns, strict=True)
        )
        of_unit = {unit: feature for feature, own in enumerate(columns) for unit in own}
        self.feature_of = [of_unit.get(unit) for unit in range(len(texts))]
        self.firsts = [own[0] for own in columns]

    def present(self, mask: Bool[Tensor, "S F"]) -> Bool[Tensor, "S U"]:
        """Which of all U units are present."""
        units = torch.ones(len(mask), len(self.feature_of), dtype=torch.bool)
        for unit, feature in enumerate(self.feature_of):
            if feature is not None:
                units[:, unit] = mask[:, feature]
        return units
