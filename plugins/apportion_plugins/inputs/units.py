"""Units of a prompt (pieces, tokens, turns), each part of a feature or always present."""

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
    """Features made up of units, and the mapping from coalitions of features to units.

    Args:
        texts: texts of all units, in order.
        kept: units that are always present.
        baseline: text that replaces an absent unit.
        labels: names of the units; ``None`` for their texts.
        groups: a label per unit; units with the same label form one feature of that name. ``None`` for one feature
            per unit.
        all_kept: all units may be kept, because the prompt has other features.

    Attributes:
        features: the features, in the order of their first units.
        feature_of: feature of each unit, or ``None`` for one that is kept.
        firsts: first unit of each feature.

    Raises:
        InputError: all units are kept, and ``all_kept`` does not allow it.
    """

    def __init__(
        self,
        texts: Sequence[str],
        kept: Collection[int],
        *,
        baseline: str = "",
        labels: Sequence[str] | None = None,
        groups: Sequence[str] | None = None,
        all_kept: bool = False,
    ) -> None:
        free = [i for i in range(len(texts)) if i not in kept]
        if not free and not all_kept:
            raise InputError("Every feature is kept; leave at least one to attribute to.")
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
        self._free = {unit: feature for feature, own in enumerate(columns) for unit in own}
        self.feature_of = [self._free.get(unit) for unit in range(len(texts))]
        self.firsts = [own[0] for own in columns]

    def present(self, mask: Bool[Tensor, "S F"]) -> Bool[Tensor, "S U"]:
        """Mask of the U units that are present."""
        units = torch.ones(len(mask), len(self.feature_of), dtype=torch.bool)
        units[:, list(self._free)] = mask[:, list(self._free.values())]
        return units
