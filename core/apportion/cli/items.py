"""The rows of a dataset as prompts, each with its own arguments."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from apportion.cli.conversing import chat_of
from apportion.cli.dataset import Record, read_records
from apportion.cli.options.prompt import PromptOptions
from apportion.cli.parse import pair, usage_error
from apportion.cli.prompting import build_prompt
from apportion.errors import InputError, listing, suggestion
from apportion.options import checked_seed
from apportion.prompts.template import placeholders
from apportion.rendering.encoder import check_encodable

__all__ = ["Columns", "Item", "content_hash", "read_items"]


@dataclass(frozen=True, slots=True)
class Columns:
    """Names of the columns with a meaning in every run."""

    prompt: str = "prompt"
    target: str = "target"
    id: str = "id"
    contrast: str = "contrast"
    seed: str = "seed"
    image: str | None = None

    def named(self) -> dict[str, str]:
        """The columns of targets, ids and pictures that a flag names, by the flag."""
        usual = Columns()
        flags = {"--target-column": (self.target, usual.target), "--id-column": (self.id, usual.id)}
        found = {flag: name for flag, (name, default) in flags.items() if name != default}
        return found if self.image is None else found | {"--image-column": self.image}


@dataclass(frozen=True, slots=True)
class Item:
    """A row, ready to be attributed.

    Attributes:
        id: id, unique among the rows.
        record: the row of the file.
        arguments: arguments of ``attribute``; they take precedence over the flags.
        hash: hash of the cells that decide the arguments.
        fault: reason why it cannot be attributed; ``None`` if it can.
    """

    id: str
    record: Record
    arguments: Mapping[str, Any]
    hash: str
    fault: str | None = None


def read_items(
    path: Path, options: PromptOptions, columns: Columns, *, writes: bool = False
) -> tuple[list[Item], list[str]]:
    """Read every row of a dataset, and the unused columns, each with the known name that it resembles.

    Args:
        path: the dataset.
        options: options of prompts.
        columns: names of columns.
        writes: the model writes texts, also after prompts whose target is given.

    Raises:
        typer.BadParameter: options do not go together.
        InputError: the file cannot be read, or a column is missing everywhere.
    """
    records = read_records(path)
    known = dict.fromkeys(name for record in records for name in record.values)
    slots = _slots(options)
    wanted = (columns.prompt,) if slots is None else slots
    if any(record.fault is None for record in records):
        for name in wanted:
            if name not in known:
                raise InputError(_missing(path, name, known, template=slots is not None))
        for flag, name in columns.named().items():
            if name not in known:
                raise InputError(
                    f"{path} has no column {name!r}, which {flag} names. {suggestion(name, known)}"
                    f"Its columns: {listing(known)}."
                )
    place = path.parent
    items = _with_own_ids([_item(record, options, columns, slots, place, writes) for record in records], columns.id)
    pictures = () if columns.image is None else (columns.image,)
    used = dict.fromkeys((*wanted, columns.target, columns.id, columns.contrast, columns.seed, *pictures))
    return items, [_unused(name, [one for one in used if one not in known]) for name in known if name not in used]


def _unused(name: str, missing: Sequence[str]) -> str:
    """An unused column, with the missing one that it may be meant for."""
    hint = suggestion(name.strip().lower(), missing).rstrip("? ")
    return f"{name} ({hint[0].lower()}{hint[1:]}?)" if hint else name


def _slots(options: PromptOptions) -> tuple[str, ...] | None:
    """The slots that columns fill; ``None`` without a template."""
    if options.template is None:
        return None
    constant = {pair("--value", text, "name=Dave")[0] for text in options.value}
    found = tuple(name for name in placeholders(options.template) if name not in constant)
    if not found:
        usage_error("--template", "every slot has a --value, so all rows would be the same prompt.")
    return found


def _missing(path: Path, name: str, known: Mapping[str, Any], *, template: bool) -> str:
    what = f"the slot {name!r} of the template" if template else "the prompts"
    hint = f"Fill it in all rows with --value {name}=…." if template else "Name the right one with --prompt-column."
    close = suggestion(name, known)
    return f"{path} has no column {name!r} for {what}. {close}Its columns: {listing(known)}. {hint}"


def _item(
    record: Record, options: PromptOptions, columns: Columns, slots: Sequence[str] | None, place: Path, writes: bool
) -> Item:
    values = record.values
    given = values.get(columns.id)
    if record.fault is not None:
        # Its number may be the id of another row.
        return Item(record.place, record, {}, "", record.fault)
    row_id = str(record.number) if given is None or given == "" else str(given)
    taken = () if slots is None else slots
    own = {
        name: values.get(column)
        for name, column in (("target", columns.target), ("contrast", columns.contrast), ("seed", columns.seed))
        if column not in taken and values.get(column) not in (None, "")
    }
    prompt: Any = values.get(columns.prompt) if slots is None else {slot: values.get(slot) for slot in slots}
    pictures = None if columns.image is None else values.get(columns.image)
    contents = {} if pictures is None else {"pictures": _with_hashes(pictures, place)}
    digest = _hash({"prompt": prompt, **own, **contents})
    try:
        if columns.image is not None:
            options = _with_pictures(options, pictures, place)
        for name in taken or (columns.prompt,):
            _check_unicode(name, values.get(name))
        for name, value in own.items():
            _check_unicode(name, value)
        arguments: dict[str, Any] = {name: _target(name, value) for name, value in own.items() if name != "seed"}
        if "seed" in own:
            arguments["seed"] = checked_seed(_whole("seed", own["seed"]))
        if "target" in own and not writes:
            arguments["generate"] = None  # nothing is generated
        for name in taken or (columns.prompt,):
            _check_there(name, values)
        built = _prompt(prompt, options) if slots is None else _filled(prompt, options)
        return Item(row_id, record, {"prompt": built, **arguments}, digest)
    except InputError as error:
        return Item(row_id, record, {}, digest, str(error))


def _check_there(name: str, values: Mapping[str, Any]) -> None:
    """Refuse a row of JSON that lacks a key which other rows have."""
    if name not in values:
        raise InputError(f"it has no {name!r}. {suggestion(name, values)}It has: {listing(values)}")


def content_hash(path: Path) -> str:
    """A digest of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:16]


def _with_hashes(cell: object, place: Path) -> list[object]:
    """Paths of pictures with digests of their files, so that a run goes on with the same pictures only."""
    paths = cell if isinstance(cell, list) else [cell]
    files = [place / path for path in paths if isinstance(path, str) and path]
    return [*paths, *(content_hash(file) for file in files if file.is_file())]


def _hash(cells: object) -> str:
    """A digest of a row's cells, the same for each kind of file: numbers are texts in CSV."""

    def texts(value: object) -> object:
        if isinstance(value, Mapping):
            return {str(key): texts(part) for key, part in value.items()}
        return [texts(part) for part in value] if isinstance(value, list) else str(value)

    text = json.dumps(texts(cells), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def _prompt(value: object, options: PromptOptions) -> object:
    if isinstance(value, list | dict):
        return chat_of(value, "the column of prompts", options)
    if not isinstance(value, str):
        raise InputError(f"the column of prompts holds {_shown(value)}, but a text is needed")
    return build_prompt(options, value)


def _with_pictures(options: PromptOptions, cell: object, place: Path) -> PromptOptions:
    """The options with the pictures of a row: a path, or a list of paths, relative to the folder of the dataset."""
    if cell is None or cell == "":
        return replace(options, segments=(), fill=None, max_pixels=None)
    paths: list[Any] = cell if isinstance(cell, list) else [cell]
    wrong = next((path for path in paths if not isinstance(path, str) or not path), None)
    if wrong is not None or not paths:
        raise InputError(f"the column of pictures holds {_shown(cell)}, but a path is needed, or a list of paths")
    return replace(options, image=tuple(place / path for path in paths))


def _target(name: str, value: object) -> str | list[int]:
    """A text, or a list of token ids."""
    if isinstance(value, list) and value and all(type(part) is int for part in value):
        return value
    if not isinstance(value, str):
        raise InputError(
            f"the column {name!r} holds {_shown(value)}, but a text is needed, or a list of token ids such as "
            "[504, 2471]"
        )
    return value


def _filled(values: Mapping[str, object], options: PromptOptions) -> object:
    """The template with its slots filled in their order in it, so that features have one order in all rows."""
    texts = {slot: _text(slot, value) for slot, value in values.items()}
    constant = dict(pair("--value", text, "name=Dave") for text in options.value)
    order = [name for name in placeholders(options.template or "") if name in texts or name in constant]
    unknown = [text for text in options.value if pair("--value", text, "name=Dave")[0] not in order]
    filled = [f"{slot}={constant.get(slot, texts.get(slot, ''))}" for slot in order]
    return build_prompt(replace(options, value=(*filled, *unknown)))


def _text(name: str, value: object) -> str:
    """The text of a cell: numbers as CSV would have them."""
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise InputError(f"the column {name!r} holds {_shown(value)}, but a text is needed")
    return str(value)


def _shown(value: object) -> str:
    """A cell as JSON writes it."""
    try:
        text = "no value (null)" if value is None else json.dumps(value, ensure_ascii=False)
    except (TypeError, ValueError):  # dates and bytes of Parquet files
        text = f"{value!r}"
    return text if len(text) <= 60 else f"{text[:59]}…"


def _check_unicode(name: str, value: object) -> None:
    """Refuse lone surrogates in any text of a cell."""
    if isinstance(value, str):
        check_encodable(f"text in the column {name!r}", value)
    elif isinstance(value, Mapping):
        for part in (*value, *value.values()):
            _check_unicode(name, part)
    elif isinstance(value, list):
        for part in value:
            _check_unicode(name, part)


def _whole(name: str, value: object) -> int:
    try:
        # pandas makes floats of columns with empty cells, and so 1 becomes 1.0.
        return int(str(value).removesuffix(".0"))
    except ValueError:
        raise InputError(f"the column {name!r} holds {_shown(value)}, but a whole number is needed") from None


def _with_own_ids(items: Sequence[Item], column: str) -> list[Item]:
    """The rows, with a fault where another row has the same id; an id in the file comes before a row's number."""
    first: dict[str, Item] = {}
    given = {item.id: item for item in reversed(items) if item.fault is None and _has_id(item, column)}
    found: list[Item] = []
    for item in items:
        if item.fault is None:
            holder = first.setdefault(item.id, given.get(item.id, item))
            if holder is not item:
                item = replace(item, id=item.record.place, fault=_same_id(item, holder, column))
        found.append(item)
    return found


def _has_id(item: Item, column: str) -> bool:
    return item.record.values.get(column) not in (None, "")


def _same_id(item: Item, holder: Item, column: str) -> str:
    other = holder.record.place
    if _has_id(item, column):
        return f"it has the id {item.id!r}, and so has {other}; results are named by it, so give it another one"
    return (
        f"it has no id, so that its number would name its result, and {item.id!r} is the id of {other}; give it an id "
        f"in the column {column!r}"
    )
