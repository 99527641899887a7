"""Templates, whose features are slots or groups of slots; absent features take their baselines."""

from __future__ import annotations

import itertools
import math
import random
import string
from collections.abc import Mapping, Sequence

from jaxtyping import Bool
from torch import Tensor

from apportion.errors import InputError
from apportion.prompts.template import Template
from apportion.protocols.features import Feature, Segment
from apportion.protocols.inputs import Alternatives
from apportion.protocols.row import ModelInput
from apportion.rendering.context import AdaptContext

__all__ = ["TemplateAdapter"]

Values = Mapping[str, object]


class TemplateAdapter:
    """Renders a template with the values of present features and the baselines of absent ones."""

    def __init__(self, prompt: Template, context: AdaptContext) -> None:
        self._prompt = prompt
        self._context = context
        given = prompt.values
        values = given.values() if isinstance(given, Mapping) else given
        self._values: Values = dict(zip(prompt.slots, values, strict=True))
        self._slots = prompt.feature_slots()
        self._draws, self.notes = _draw_baselines(prompt, context.seed)
        self.draws = len(self._draws)
        self.features = tuple(self._feature(slots) for slots in self._slots)
        if not self._fill(self._values).strip():
            raise InputError("The template gives an empty prompt with all values, so there is nothing to attribute to.")
        self.segments = self._segments()

    def render(self, mask: Bool[Tensor, "S F"]) -> list[ModelInput | Alternatives]:
        """Render one input for each coalition, or for each coalition and baseline draw."""
        texts = [self._coalition(row, draw) for row in mask.tolist() for draw in self._draws]
        inputs = [ModelInput(ids) for ids in self._context.encode(texts)]
        if self.draws == 1:
            return list(inputs)
        return [Alternatives(tuple(inputs[i : i + self.draws])) for i in range(0, len(inputs), self.draws)]

    def _coalition(self, present: Sequence[bool], draw: Values) -> str:
        values = dict(draw)
        for slots, here in zip(self._slots, present, strict=True):
            if here:
                values |= {slot: self._values[slot] for slot in slots}
        return self._fill(values)

    def _fill(self, values: Values) -> str:
        ordered = [values[slot] for slot in self._prompt.slots]
        template = self._prompt.template
        if isinstance(template, str):
            try:
                return template.format(*ordered) if self._prompt.positional else template.format(**values)
            except (ValueError, TypeError, IndexError) as error:
                raise InputError(f"The template cannot be filled with {dict(values)!r}: {error}.") from error
        text = template(*ordered) if self._prompt.positional else template(**values)
        if not isinstance(text, str):
            raise InputError(f"The template function must return a str; it returned {text!r} for {dict(values)!r}.")
        return text

    def _feature(self, slots: tuple[str, ...]) -> Feature:
        baselines = [" … ".join(str(draw[slot]) for slot in slots) for draw in self._draws]
        distinct = list(dict.fromkeys(baseline.strip(" …") for baseline in baselines))
        return Feature(
            name=" + ".join(slots),
            text=" … ".join(str(self._values[slot]) for slot in slots),
            members=slots if len(slots) > 1 else (),
            baseline=" | ".join(distinct),
        )

    def _segments(self) -> tuple[Segment, ...]:
        """The full prompt, split at the slots; a single segment if the template is a function."""
        template = self._prompt.template
        if not isinstance(template, str):
            return (Segment(self._fill(self._values)),)
        of_slot = {slot: feature for feature, slots in enumerate(self._slots) for slot in slots}
        found: list[Segment] = []
        automatic = itertools.count()
        for literal, name, spec, conversion in string.Formatter().parse(template):
            if literal:
                found.append(Segment(literal))
            if name is None:
                continue
            slot = name or str(next(automatic))
            field = f"{{0{'!' + conversion if conversion else ''}{':' + spec if spec else ''}}}"
            found.append(Segment(field.format(self._values[slot]), of_slot[slot]))
        return tuple(found)


def _draw_baselines(prompt: Template, seed: int) -> tuple[list[Values], tuple[str, ...]]:
    """Values of all slots in each draw, and a note on how they were drawn."""
    alternatives = prompt.alternatives()
    sizes = [len(choices) for _, choices in alternatives]
    total = math.prod(sizes)
    if total <= prompt.draws:
        numbers: Sequence[int] = range(total)
        notes: tuple[str, ...] = (f"averaged over all {total} combinations of baselines",) if total > 1 else ()
    else:
        numbers = _distinct_numbers(total, prompt.draws, random.Random(seed))
        notes = (f"averaged over {prompt.draws} of {total} combinations of baselines, drawn with seed {seed}",)
    draws: list[Values] = []
    for number in numbers:
        values: dict[str, object] = {}
        for (slots, choices), size in zip(alternatives, sizes, strict=True):
            number, choice = divmod(number, size)
            values |= zip(slots, choices[choice], strict=True)
        draws.append(values)
    return draws, notes


def _distinct_numbers(total: int, count: int, draw: random.Random) -> list[int]:
    """Distinct numbers below ``total``, which may be too large for ``random.sample``."""
    found: set[int] = set()
    while len(found) < count:
        found.add(draw.randrange(total))
    return sorted(found)
