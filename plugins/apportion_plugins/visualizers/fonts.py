"""Fonts for any script: the user's own first, then installed ones that have the missing characters."""

from __future__ import annotations

import functools
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import regex

from apportion_plugins.visualizers.drawing import font_manager, ft2font, rcParams
from apportion_plugins.visualizers.labels import has_right_to_left

__all__ = ["SHAPES_TEXT", "Lettering", "embeddable", "lettering"]

SHAPES_TEXT = hasattr(ft2font, "__libraqm_version__")
"""True if matplotlib itself joins Arabic letters and orders right-to-left text (3.11 and later)."""

BOX = "▯"
_CHINESE = (
    "Noto Sans CJK SC", "Noto Sans SC", "Source Han Sans SC", "PingFang SC", "Microsoft YaHei", "WenQuanYi Micro Hei",
    "WenQuanYi Zen Hei", "SimHei", "Heiti SC", "Droid Sans Fallback", "Noto Sans CJK TC", "PingFang TC",
    "Microsoft JhengHei",
)  # fmt: skip
_JAPANESE = (
    "Noto Sans CJK JP", "Noto Sans JP", "Source Han Sans JP", "Hiragino Sans", "Yu Gothic", "Meiryo", "MS Gothic",
    "IPAexGothic", "TakaoPGothic",
)  # fmt: skip
_KOREAN = ("Noto Sans CJK KR", "Noto Sans KR", "Apple SD Gothic Neo", "Malgun Gothic", "NanumGothic", "UnDotum")
_OTHERS = (
    "Noto Sans", "Noto Naskh Arabic", "Noto Sans Arabic", "Geeza Pro", "Segoe UI", "Tahoma", "Noto Sans Hebrew",
    "Noto Sans Devanagari", "Noto Sans Bengali", "Noto Sans Tamil", "Noto Sans Telugu", "Noto Sans Kannada",
    "Noto Sans Malayalam", "Noto Sans Gujarati", "Noto Sans Gurmukhi", "Noto Sans Sinhala", "Kohinoor Devanagari",
    "Nirmala UI", "Noto Sans Thai", "Thonburi", "Leelawadee UI", "Noto Sans Khmer", "Noto Sans Lao",
    "Noto Sans Myanmar", "Noto Sans Ethiopic", "Noto Sans Georgian", "Noto Sans Armenian", "Noto Sans Tibetan",
    "Noto Emoji", "Segoe UI Emoji", "Symbola", "Segoe UI Symbol", "Apple Symbols", "Noto Sans Symbols",
    "Noto Sans Symbols 2", "Noto Sans Symbols2", "Noto Sans Math", "Arial Unicode MS", "FreeSans", "FreeSerif",
    "Unifont",
)  # fmt: skip
_ADVICE = (
    (
        "Chinese, Japanese or Korean",
        r"[\p{Han}\p{Hiragana}\p{Katakana}\p{Hangul}\u3000-\u303f\uff00-\uffef]",
        "Noto Sans CJK",
    ),
    ("emoji", r"[\p{Extended_Pictographic}\p{Regional_Indicator}\p{Emoji_Modifier}]", "Noto Emoji or Symbola"),
    ("Arabic", r"\p{Arabic}", "Noto Naskh Arabic"),
    ("other", r"(?s).", "the Noto Sans font of their script"),
)
_EMOJI = regex.compile(
    r"\p{Regional_Indicator}{2}|\p{Emoji_Modifier}"
    r"|\p{Extended_Pictographic}(?:[\p{M}\p{Emoji_Modifier}]|\u200d\p{Extended_Pictographic})*"
)
_FLAG_A = 0x1F1E6
_COLLECTION, _POSTSCRIPT = b"ttcf", b"OTTO"
"""Marks of files with several fonts, and of fonts whose outlines are those of PostScript (CFF)."""


@dataclass(frozen=True, slots=True)
class Lettering:
    """Fonts for the texts of one figure.

    Attributes:
        families: font families for the ``family`` of every text.
        missing: characters that no installed font has.
        notes: notes for readers of the figure.
    """

    families: list[str]
    missing: frozenset[str] = frozenset()
    notes: list[str] = field(default_factory=list)

    def drawable(self, text: str) -> str:
        """The text with missing characters replaced: emoji by names, one other by its code point, several by boxes."""
        if self.missing.intersection(text):
            text = _EMOJI.sub(lambda found: self._named(found[0]), text)
        if not SHAPES_TEXT:
            text = "".join(c for c in text if not _is_ignorable(c))
        lost = [c for c in text if c in self.missing]
        stand_in = BOX if len(lost) > 1 else "".join(f"U+{ord(c):04X}" for c in lost)
        return "".join(stand_in if c in self.missing else c for c in text)

    def _named(self, emoji: str) -> str:
        """An emoji, or its name if a part of it is missing: ``[thumbs up sign]``, ``[man + girl]``, ``[flag FR]``."""
        if not self.missing.intersection(emoji):
            return emoji
        letters = [chr(ord(c) - _FLAG_A + ord("A")) for c in emoji if _FLAG_A <= ord(c) < _FLAG_A + 26]
        parts = [c for c in emoji if not (_is_ignorable(c) or unicodedata.category(c) in ("Sk", "Mn", "Me"))]
        if letters:
            return f"[flag {''.join(letters)}]"
        return f"[{' + '.join(unicodedata.name(c, f'U+{ord(c):04X}').lower() for c in parts)}]"


def lettering(texts: Iterable[str]) -> Lettering:
    """Choose installed fonts that can draw these texts, as far as possible."""
    everything = "".join(texts) + BOX
    own = [str(family) for family in rcParams["font.family"]]
    families = list(own)
    left = {c for c in everything if not _is_ignorable(c) and not c.isspace()} - _characters(tuple(own))
    for family in _candidates(everything):
        if not left:
            break
        found = left & _characters((family,))
        if found:
            families.append(family)
            left -= found
    notes = _missing_notes(left)
    if not SHAPES_TEXT and has_right_to_left(everything):
        notes.append(
            "This matplotlib draws right-to-left text unjoined and from left to right. Use 3.11 or plot('html')."
        )
    return Lettering(families, frozenset(left), notes)


def _candidates(text: str) -> list[str]:
    """Installed families, those of the text's language first, because Han characters differ between them."""
    if regex.search(r"[\p{Hiragana}\p{Katakana}]", text):
        asian: Sequence[str] = (*_JAPANESE, *_CHINESE, *_KOREAN)
    elif regex.search(r"\p{Hangul}", text):
        asian = (*_KOREAN, *_CHINESE, *_JAPANESE)
    else:
        asian = (*_CHINESE, *_JAPANESE, *_KOREAN)
    installed = {font.name for font in font_manager.fontManager.ttflist}
    return [family for family in ("DejaVu Sans", *_OTHERS, *asian) if family in installed]


def embeddable(text: str, families: Sequence[str]) -> bool:
    """True if PDF and PostScript files can embed the fonts of a text as TrueType fonts.

    Matplotlib would embed fonts with PostScript outlines, such as Noto Sans CJK, as if they were TrueType.
    """
    left = set(text)
    for family in families:
        found = left & _characters((family,))
        if found and _has_postscript_outlines(family):
            return False
        left -= found
    return True


@functools.lru_cache(maxsize=256)
def _characters(families: tuple[str, ...]) -> frozenset[str]:
    """Characters of the font that matplotlib selects for these families."""
    return frozenset(map(chr, font_manager.get_font(_file(families)).get_charmap()))


@functools.lru_cache(maxsize=256)
def _has_postscript_outlines(family: str) -> bool:
    with Path(_file((family,))).open("rb") as file:
        mark = file.read(4)
        if mark == _COLLECTION:
            file.seek(12)
            file.seek(int.from_bytes(file.read(4)))
            mark = file.read(4)
    return mark == _POSTSCRIPT


def _file(families: Sequence[str]) -> str:
    return font_manager.findfont(font_manager.FontProperties(family=list(families)))


def _is_ignorable(character: str) -> bool:
    """True for joiners, direction marks and variation selectors, which have no glyph of their own."""
    return unicodedata.category(character) == "Cf" or "\ufe00" <= character <= "\ufe0f"


def _missing_notes(missing: set[str]) -> list[str]:
    notes = []
    left = set(missing)
    for kind, pattern, font in _ADVICE:
        found = {c for c in left if regex.fullmatch(pattern, c)}
        left -= found
        if found:
            many = f"{len(found)} {kind} character{'' if len(found) == 1 else 's'}"
            shown = "by name" if kind == "emoji" else f"as {BOX} or by code point"
            notes.append(
                f"No installed font has {many}, shown {shown}. Install {font} "
                "and clear matplotlib's font cache, or use plot('html')."
            )
    return notes
