"""A prompt with slots."""

from __future__ import annotations

import inspect
import string
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from apportion.errors import InputError, counted, listing, shown, suggestion, unknown_name
from apportion.options import whole_number
from apportion.prompts.common import repeated

__all__ = ["Template", "placeholders"]


@dataclass(frozen=True)
class Template:
    """A prompt with slots; each slot, or group of slots, is a feature.

    Args:
        template: a format string (``"{name} lives in {city}"`` or ``"{} lives in {}"``), or a function
            that takes the slots' values (by name, or by position for a list) and returns the prompt.
        values: the slots' values: a dict, or a list for positional slots.
        baselines: the value of each slot when its feature is absent, in the same form as ``values``; slots that are
            not mentioned become empty. In a dict, a list of strings gives several alternatives, and a tuple of
            slots as a key gives alternatives that change together:
            ``{"name": ["Sarah", "Mary"], ("city", "state"): [("Seattle", "WA"), ("Austin", "TX")]}``. Every
            coalition is averaged over the same draws from their product.
        groups: tuples of slots that are perturbed together and get one score.
        draws: maximum number of combinations of alternative baselines to average over. If there are more
            combinations, this many distinct ones are drawn with the run's seed.

    Raises:
        InputError: a placeholder has no value, a value or baseline is given for an unknown slot, a slot in
            ``groups`` is unknown or repeated, or an alternative has the wrong length.
    """

    template: str | Callable[..., str]
    values: Mapping[str, object] | Sequence[object]
    baselines: Mapping[str | tuple[str, ...], object] | Sequence[object] | None = None
    groups: Sequence[Sequence[str | int]] = ()
    draws: int = 16
    slots: tuple[str, ...] = field(init=False, repr=False)
    positional: bool = field(init=False, repr=False)

    def __post_init__(self) -> None:
        if isinstance(self.values, str) or not isinstance(self.values, Mapping | Sequence):
            raise InputError(f"values={shown(self.values)} must be a dict or a list.")
        positional = not isinstance(self.values, Mapping)
        names = [str(i) for i in range(len(self.values))] if positional else [str(k) for k in self.values]
        object.__setattr__(self, "positional", positional)
        object.__setattr__(self, "slots", tuple(names))
        if not names:
            raise InputError("A template needs at least one value; values must not be empty.")
        whole_number("draws", self.draws, least=1)
        self._check_placeholders()
        self._check_values()
        self._check_groups()
        if isinstance(self.baselines, str) or not isinstance(self.baselines, Mapping | Sequence | None):
            raise InputError(f"baselines={shown(self.baselines)} must be a dict or a list.")
        self.alternatives()

    def _check_placeholders(self) -> None:
        if not isinstance(self.template, str):
            if not callable(self.template):
                raise InputError(f"template={shown(self.template)} must be a format string or a function.")
            return
        wanted = placeholders(self.template)
        given, used = frozenset(self.slots), frozenset(wanted)
        missing = [name for name in wanted if name not in given]
        if missing:
            raise InputError(
                f"The template's placeholders {listing(map(repr, missing))} have no value; "
                f"values are given for {listing(map(repr, self.slots))}."
            )
        unused = [name for name in self.slots if name not in used]
        if unused:
            hint = suggestion(unused[0], wanted)
            raise InputError(
                f"Values are given for {listing(map(repr, unused))}, which the template does not use. "
                f"{hint}Its placeholders: {listing(map(repr, wanted))}."
            )

    def _check_values(self) -> None:
        if not isinstance(self.template, str):
            return  # a function may take values of any type
        given = self.values.items() if isinstance(self.values, Mapping) else zip(self.slots, self.values, strict=True)
        for slot, value in given:
            _check_fills(slot, value, "value")
        if isinstance(self.values, Mapping) and any(slot.isdigit() for slot in self.slots):
            raise InputError("Numbered slots need a list: values=[…] instead of a dict.")

    def _check_groups(self) -> None:
        known = frozenset(self.slots)
        seen: dict[str, Sequence[str | int]] = {}
        if isinstance(self.groups, str) or not isinstance(self.groups, Sequence):
            raise InputError(f"groups={shown(self.groups)} must be a list of tuples of slots.")
        for group in self.groups:
            if isinstance(group, str):
                raise InputError(f"The group {group!r} is a string; write a tuple of slots such as ({group!r},).")
            if not isinstance(group, Sequence) or not group:
                raise InputError(f"The group {shown(group)} must be a tuple of one slot or more.")
            for slot in map(str, group):
                if slot not in known:
                    raise unknown_name("slot", slot, self.slots, f"It is named in the group {tuple(group)!r}.")
                if seen.get(slot) is group:
                    raise InputError(f"The group {tuple(group)!r} names the slot {slot!r} twice.")
                if slot in seen:
                    raise InputError(
                        f"The slot {slot!r} is in two groups, {tuple(seen[slot])!r} and {tuple(group)!r}; "
                        "a slot can be in one group only."
                    )
                seen[slot] = group

    @classmethod
    def example(cls) -> Template:
        """A small example, for trying things out (``apportion plugins check``)."""
        return cls("{name} is a {job}. {name} likes", {"name": "Dave", "job": "lawyer"}, {"name": "Sarah"})

    def feature_slots(self) -> tuple[tuple[str, ...], ...]:
        """The slots of each feature: groups and single slots, in the order of their first slot."""
        of_slot = {slot: tuple(map(str, group)) for group in self.groups for slot in map(str, group)}
        return tuple(dict.fromkeys(of_slot.get(slot, (slot,)) for slot in self.slots))

    def alternatives(self) -> list[tuple[tuple[str, ...], list[tuple[object, ...]]]]:
        """Return ``(slots, choices)`` for each independent baseline; a choice has one value per slot."""
        if self.baselines is None:
            return [((slot,), [("",)]) for slot in self.slots]
        given: Iterable[tuple[object, object]]
        if isinstance(self.baselines, Mapping):
            given = self.baselines.items()
        else:
            if len(self.baselines) != len(self.slots):
                raise InputError(
                    f"The list of baselines has {len(self.baselines)} for {counted(len(self.slots), 'slot')}; it "
                    f"needs one per "
                    "slot. Use a dict to give fewer."
                )
            given = zip(self.slots, self.baselines, strict=True)
        known = frozenset(self.slots)
        found = [self._alternative(key, value, known) for key, value in given]
        twice = repeated(slot for slots, _ in found for slot in slots)
        if twice is not None:
            raise InputError(f"The slot {twice!r} has two baselines; give it only one.")
        named = {slot for slots, _ in found for slot in slots}
        return found + [((slot,), [("",)]) for slot in self.slots if slot not in named]

    def _alternative(
        self, key: object, value: object, known: Collection[str]
    ) -> tuple[tuple[str, ...], list[tuple[object, ...]]]:
        slots = tuple(map(str, key)) if isinstance(key, tuple) else (str(key),)
        for slot in slots:
            if slot not in known:
                raise unknown_name("slot", slot, self.slots, f"A baseline is given for {key!r}.")
        choices = _choices(value, joint=isinstance(key, tuple))
        if not choices:
            raise InputError(f"The list of baselines for {key!r} must not be empty; omit it to leave the slot empty.")
        if not isinstance(key, tuple):
            for choice in choices if isinstance(self.template, str) else ():
                _check_fills(str(key), choice, "baseline")
            return slots, [(choice,) for choice in choices]
        for choice in choices:
            if not isinstance(choice, tuple | list) or len(choice) != len(slots):
                raise InputError(
                    f"The baseline {choice!r} of {key!r} must be a tuple of {counted(len(slots), 'value')}, one "
                    f"per slot."
                )
            for slot, part in zip(slots, choice, strict=True) if isinstance(self.template, str) else ():
                _check_fills(slot, part, "baseline")
        return slots, [tuple(choice) for choice in choices if isinstance(choice, tuple | list)]


def _check_fills(slot: str, value: object, what: str) -> None:
    if value is None or isinstance(value, list | tuple | dict | set | bytes | type) or inspect.isroutine(value):
        raise InputError(
            f"The {what} {shown(value)} of the slot {slot!r} is a {type(value).__name__}; give a string or a number"
            f"{' (an empty string for nothing)' if value is None else ''}."
        )


def _choices(value: object, *, joint: bool) -> list[object]:
    """The alternatives in a baseline; for a tuple of slots, a tuple is one joint choice."""
    if isinstance(value, list) or (isinstance(value, tuple) and not joint):
        return list(value)
    return [value]


def placeholders(template: str) -> list[str]:
    """The distinct slots of a format string, in order; ``{}`` counts as ``0``, ``1``, …

    Raises:
        InputError: the string is not a valid format string, or uses attributes or items of a slot.
    """
    names: dict[str, None] = {}
    automatic = 0
    try:
        fields = [name for _, name, _, _ in string.Formatter().parse(template) if name is not None]
    except ValueError as error:
        raise InputError(
            f"The template is not a valid format string: {error}. Write {{{{ and }}}} for literal braces."
        ) from error
    for name in fields:
        if name == "":
            name, automatic = str(automatic), automatic + 1
        if not (name.isdigit() or name.isidentifier()):
            raise InputError(f"The placeholder {{{name}}} is not a plain slot name; use names such as {{city}}.")
        names[name] = None
    return list(names)
