"""Messages of the library in the words of the shell."""

from __future__ import annotations

import re

from apportion.errors import counted

__all__ = ["in_shell_words", "written_targets"]

FLAGS = {
    "allow_missing": "--allow-missing",
    "at_once": "--at-once",
    "attribute_generated": "--attribute-generated",
    "backend": "--backend",
    "backend_options": "--backend-option",
    "baseline": "--text-baseline",
    "as_chat": "--as-chat",
    "by": "--features",
    "cache": "--cache",
    "chat": "--as-chat",
    "contextless": "--contextless",
    "contrast": "--contrast",
    "cue_threshold": "--cue-threshold",
    "device": "--device",
    "dtype": "--dtype",
    "features": "--features",
    "fill": "--fill",
    "generate": "--generate",
    "keep": "--keep",
    "layout": "--layout",
    "key_file": "--key-file",
    "max_cost": "--max-cost",
    "max_requests": "--max-requests",
    "max_std_error": "--until",
    "price": "--price",
    "max_pixels": "--max-pixels",
    "memory_budget": "--memory-budget",
    "method": "--method",
    "metric": "--metric",
    "metric_options": "--metric-option",
    "run_log": "--run-log",
    "samples": "--samples",
    "seed": "--seed",
    "segments": "--segments",
    "target": "--target",
    "target_fn": "--target-fn",
    "target_options": "--target-option",
    "template": "--context-template",
    "threshold": "--threshold",
    "tokenizer": "--tokenizer",
    "top_cues": "--top-cues",
    "top_tokens": "--top-tokens",
    "until": "--until",
    "budget": "--budget",
}
"""Arguments of the library, and their flags."""

PHRASES = {
    "allow_missing=True (--allow-missing in the shell)": "--allow-missing",
    "ap.Chat([{'role': 'user', 'content': …}])": "--as-chat",
    "Explainer(cache=True)": "--cache",
    "Run attribute() again": "Attribute the prompt again",
    "run attribute() again": "attribute the prompt again",
}
WORDS = {"True": "true", "False": "false", "None": "null"}

# Text between quotes, and calls such as tensor([nan], dtype=torch.float64), whose arguments are Python's.
_QUOTED = re.compile(
    r"""((?<!\w)'(?:[^'\\]|\\.)*'(?!\w)|"(?:[^"\\]|\\.)*"|`[^`]*`|\w+\((?:[^()]|\((?:[^()]|\([^()]*\))*\))*\))"""
)
_ARGUMENT = re.compile(rf"(?<![\w.-])(?<!\w\()({'|'.join(FLAGS)})=(?!torch\.)(?:True\b)?(?=(\S?))")
# Not where they are words: at the beginning of a sentence, and in "None of …".
_WORD = re.compile(rf"(?<!^)(?<![.!?] )\b({'|'.join(WORDS)})\b(?! of\b)")


def in_shell_words(message: str) -> str:
    """Rewrite arguments as flags, and values as JSON, as they are typed in the shell.

    Quoted texts and calls stay as they are.

    >>> in_shell_words("budget=3 must be larger than 'budget=5'.")
    "--budget 3 must be larger than 'budget=5'."
    >>> in_shell_words("Give budget= (total evaluations) or until=.")
    'Give --budget (total evaluations) or --until.'
    >>> in_shell_words("keep=99 is out of range. None of these is True.")
    '--keep-index 99 is out of range. None of these is true.'
    >>> in_shell_words("seed=1 gave tensor([nan], dtype=torch.float64).")
    '--seed 1 gave tensor([nan], dtype=torch.float64).'
    """
    for phrase, other in PHRASES.items():
        message = message.replace(phrase, other)
    parts = _QUOTED.split(message)
    for i in range(0, len(parts), 2):
        # An argument may end its part, with its quoted value in the next one.
        follows = parts[i + 1][:1] if i + 1 < len(parts) else ""
        text = _ARGUMENT.sub(_flag, parts[i] + follows)
        parts[i] = _WORD.sub(lambda found: WORDS[found[1]], text.removesuffix(follows))
    return "".join(parts)


def written_targets(written: int, cut_off: int) -> str:
    """A phrase about targets that the model wrote, some of which end where its tokens were spent."""
    return f"{counted(written, 'target')} written by the model" + (f", {cut_off:,} cut off" if cut_off else "")


def _flag(found: re.Match[str]) -> str:
    bare = not found[2] or found[2] in ".,;:)"
    by_position = found[1] == "keep" and (found[2].isdigit() or found[2] == "-")
    return ("--keep-index" if by_position else FLAGS[found[1]]) + ("" if bare else " ")
