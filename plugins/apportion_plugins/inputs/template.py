"""Templates, whose features are slots or groups of slots; absent features take their baselines."""

from __future__ import annotations

import itertools
import math
import random
import string
from collections.abc import Iterable, Mapping, Sequence

from jaxtyping import Bool
from torch import Tensor

from apportion.errors import InputError, listing, shown_number
from apportion.functions import failures_of
from apportion.prompts.template import Template
from apportion.protocols.features import Feature, Segment
from apportion.protocols.inputs import Alternatives
from apportion.protocols.row import ModelInput
from apportion.rendering.context import AdaptContext
from apportion_plugins.inputs.marks import marked, marked_spans, segments

__all__ = ["TemplateAdapter"]

Values = Mapping[str, object]

NUMBERED = 2**1024
"""Number of combinations of baselines below which each has a number; larger numbers are slow to take apart."""


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
        inputs = self._context.prompts(texts)
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
            except Exception as error:  # values format themselves
                raise InputError(f"The template cannot be filled with {_listed(values)}: {error}.") from error
        with failures_of(template, "template", lambda: _listed(values)):
            text: object = template(*ordered) if self._prompt.positional else template(**values)
        if not isinstance(text, str):
            raise InputError(
                f"The template function must return a str; it returned {text!r:.80} for {_listed(values)}."
            )
        return text

    def _feature(self, slots: tuple[str, ...]) -> Feature:
        baselines = [" … ".join(_text_of(slot, draw[slot]) for slot in slots) for draw in self._draws]
        distinct = list(dict.fromkeys(baseline.strip(" …") for baseline in baselines))
        return Feature(
            name=" + ".join(slots),
            text=" … ".join(_text_of(slot, self._values[slot]) for slot in slots),
            members=slots if len(slots) > 1 else (),
            baseline=" | ".join(distinct),
        )

    def _segments(self) -> tuple[Segment, ...]:
        """The full prompt, split at the slots."""
        template = self._prompt.template
        of_slot = {slot: feature for feature, slots in enumerate(self._slots) for slot in slots}
        if not isinstance(template, str):
            return self._segments_of_function(of_slot)
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

    def _segments_of_function(self, of_slot: Mapping[str, int]) -> tuple[Segment, ...]:
        """The prompt that a function writes, split where it shows its values; whole if it shows marked ones otherwise.

        Only texts can be marked.
        """
        plain = self._fill(self._values)
        values = {
            slot: marked(value, number) if isinstance(value, str) else value
            for number, (slot, value) in enumerate(self._values.items())
        }
        try:
            with_marks = self._fill(values)
        except InputError:  # a function that knows its values
            return (Segment(plain),)
        spans = marked_spans(with_marks, plain)
        return (Segment(plain),) if spans is None else segments(plain, spans, [of_slot[slot] for slot in values])


def _text_of(slot: str, value: object) -> str:
    """A value as text; a value for a function may be an object that has none."""
    try:
        return str(value)
    except Exception as error:
        raise InputError(
            f"The {type(value).__name__} given for the slot {slot!r} cannot be shown as text: "
            f"{type(error).__name__}: {error}"
        ) from error


def _listed(values: Values) -> str:
    """The values of the slots, for an error."""
    shown = (f"{slot!r}: {_text_of(slot, value)!r:.80}" for slot, value in values.items())
    return f"{{{listing(shown, 6)}}}"


def _draw_baselines(prompt: Template, seed: int) -> tuple[list[Values], tuple[str, ...]]:
    """Values of all slots in each draw, and a note on how they were drawn."""
    alternatives = prompt.alternatives()
    sizes = [len(choices) for _, choices in alternatives]
    total = math.prod(sizes)
    if total <= prompt.draws:
        chosen: Iterable[Sequence[int]] = (_choices_of(number, sizes) for number in range(total))
        notes: tuple[str, ...] = (f"averaged over all {total} combinations of baselines",) if total > 1 else ()
    else:
        chosen = _distinct_choices(sizes, total, prompt.draws, random.Random(seed))
        of_all = f"{prompt.draws} of {shown_number(total)} combinations of baselines"
        notes = (f"averaged over {of_all}, drawn with seed {seed}",)
    draws: list[Values] = []
    for places in chosen:
        values: dict[str, object] = {}
        for (slots, choices), place in zip(alternatives, places, strict=True):
            values |= zip(slots, choices[place], strict=True)
        draws.append(values)
    return draws, notes


def _choices_of(number: int, sizes: Sequence[int]) -> list[int]:
    """The choice for each baseline in the combination with a number below the product of their sizes."""
    found: list[int] = []
    for size in sizes:
        number, choice = divmod(number, size)
        found.append(choice)
    return found


def _distinct_choices(sizes: Sequence[int], total: int, count: int, draw: random.Random) -> list[Sequence[int]]:
    """Distinct combinations of choices, which may be too many for ``random.sample``.

    Args:
        sizes: number of choices for each baseline.
        total: number of combinations, the product of the sizes.
        count: number of combinations to draw.
        draw: draws them.
    """
    if total < NUMBERED:
        numbers: set[int] = set()
        while len(numbers) < count:
            numbers.add(draw.randrange(total))
        return [_choices_of(number, sizes) for number in sorted(numbers)]
    found: dict[Sequence[int], None] = {}
    while len(found) < count:
        found[tuple(map(draw.randrange, sizes))] = None
    return list(found)
