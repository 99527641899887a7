"""Small tokenizers of the usual kinds, with vocabularies written by hand, for tests of what depends on the kind."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from transformers import PreTrainedTokenizer, PreTrainedTokenizerBase, PreTrainedTokenizerFast

__all__ = ["CHATML", "KINDS", "SIZE"]

SIZE = 384
"""No vocabulary is larger."""
META, SPACE, LINE = "\u2581", "\u0120", "\u010a"
"""A space in SentencePiece, and a space and a line feed in byte-level vocabularies."""
SPECIAL = {"<unk>": 0, "<s>": 1, "</s>": 2}
WORDS = ["The", "the", "capital", "of", "France", "is", "Par", "Paris"]
LETTERS = "abcdefghijklmnopqrstuvwxyzTFP.,'0123456789北京"
CHATML = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def _numbered(tokens: Iterable[str]) -> dict[str, int]:
    vocabulary = dict(SPECIAL)
    for token in tokens:
        vocabulary.setdefault(token, len(vocabulary))
    return vocabulary


def _merged(words: Iterable[str], letters: Iterable[str], end: str = "") -> tuple[dict[str, int], list[Any]]:
    """A vocabulary and merges that build each word letter by letter, from the left."""
    tokens, merges = list(letters), dict[tuple[str, str], None]()
    if end:
        tokens += [f"{letter}{end}" for letter in letters]
    for word in words:
        for i in range(1, len(word)):
            for last in {"", end if i == len(word) - 1 else ""}:
                tokens.append(f"{word[: i + 1]}{last}")
                merges[word[:i], f"{word[i]}{last}"] = None
    return _numbered(tokens), [*merges]


def _wrapped(core: Tokenizer, around: str = "$A") -> PreTrainedTokenizerFast:
    if around != "$A":
        core.post_processor = processors.TemplateProcessing(
            single=around, special_tokens=[(token, SPECIAL[token]) for token in ("<s>", "</s>")]
        )
    made = PreTrainedTokenizerFast(tokenizer_object=core, bos_token="<s>", eos_token="</s>", unk_token="<unk>")
    made.chat_template = CHATML
    return made


def byte_level(*, prefix_space: bool = False, around: str = "$A") -> PreTrainedTokenizerFast:
    """As GPT-2's: bytes, and words with the space before them."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    core = Tokenizer(models.BPE(*_merged([SPACE + w for w in WORDS] + WORDS + [LINE * 2], alphabet)))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=prefix_space)
    core.decoder = decoders.ByteLevel()
    return _wrapped(core, around)


def sentence_piece(scheme: str, *, around: str = "$A") -> PreTrainedTokenizerFast:
    """As Llama 2's and Gemma's: byte-pair encoding with a mark for spaces, and bytes for what is unknown."""
    vocabulary, merges = _merged([META + w for w in WORDS] + WORDS, META + LETTERS)
    vocabulary |= {f"<0x{i:02X}>": len(vocabulary) + i for i in range(256)}
    core = Tokenizer(models.BPE(vocabulary, merges, unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    decoding: list[Any] = [decoders.ByteFallback(), decoders.Fuse()]
    if scheme == "prefix":
        core.normalizer = normalizers.Sequence([normalizers.Prepend(META), normalizers.Replace(" ", META)])
        core.decoder = decoders.Sequence([decoders.Replace(META, " "), *decoding, decoders.Strip(" ", 1, 0)])
    else:
        core.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=scheme, split=False)
        core.decoder = decoders.Sequence([decoders.Metaspace(prepend_scheme=scheme), *decoding])
    return _wrapped(core, around)


def unigram(scheme: str, *, around: str = "$A") -> PreTrainedTokenizerFast:
    """As T5's: the likeliest pieces, with a mark for spaces."""
    likely = [(word, -4.0 - i / 10) for i, word in enumerate([META + w for w in WORDS] + WORDS)]
    pieces = [*((token, 0.0) for token in SPECIAL), *((letter, -8.0) for letter in META + LETTERS + "\n"), *likely]
    core = Tokenizer(models.Unigram(pieces, unk_id=0))
    core.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=scheme)
    core.decoder = decoders.Metaspace(prepend_scheme=scheme)
    return _wrapped(core, around)


def word_piece(*, around: str = "$A") -> PreTrainedTokenizerFast:
    """As BERT's: pieces that continue a word are marked."""
    pieces = [*LETTERS.lower(), *map(str.lower, WORDS)]
    core = Tokenizer(models.WordPiece(_numbered([*pieces, *(f"##{p}" for p in pieces)]), unk_token="<unk>"))
    core.normalizer = normalizers.Lowercase()
    core.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    core.decoder = decoders.WordPiece(cleanup=False)
    return _wrapped(core, around)


def word_ends() -> PreTrainedTokenizerFast:
    """As that of the first GPT: the last piece of a word is marked."""
    core = Tokenizer(models.BPE(*_merged(WORDS, LETTERS, "</w>"), unk_token="<unk>", end_of_word_suffix="</w>"))
    core.pre_tokenizer = pre_tokenizers.Whitespace()
    core.decoder = decoders.BPEDecoder(suffix="</w>")
    return _wrapped(core)


class Slow(PreTrainedTokenizer):
    """Written in Python: the longest piece first, with a mark for spaces that also begins a text."""

    def __init__(self, *, adds: Mapping[str, str] | None = None, **options: Any) -> None:
        self._pieces = _numbered([META, *LETTERS, "\n", "🙂", *WORDS, *(META + word for word in WORDS)])
        self._texts = {number: piece for piece, number in self._pieces.items()}
        self._adds = dict(adds or {})
        super().__init__(bos_token="<s>", eos_token="</s>", unk_token="<unk>", **options)
        self.chat_template = CHATML

    @property
    def vocab_size(self) -> int:
        return len(self._pieces)

    def get_vocab(self) -> dict[str, int]:
        return dict(self._pieces)

    def _tokenize(self, text: str, **options: Any) -> list[str]:
        left, found = (META + text).replace(" ", META), []
        while left:
            size = next((n for n in range(min(len(left), 9), 0, -1) if left[:n] in self._pieces), 1)
            found.append(left[:size])
            left = left[size:]
        return found

    def _convert_token_to_id(self, token: str) -> int:
        return self._pieces.get(token, 0)

    def _convert_id_to_token(self, index: int) -> str:
        return self._texts.get(index, "<unk>")

    def convert_tokens_to_string(self, tokens: list[str]) -> str:
        return "".join(tokens).replace(META, " ").removeprefix(" ")

    def build_inputs_with_special_tokens(self, token_ids_0: list[int], token_ids_1: Any = None) -> list[int]:
        before, after = ([SPECIAL[self._adds[end]]] if end in self._adds else [] for end in ("before", "after"))
        return before + token_ids_0 + after


KINDS: dict[str, Callable[[], PreTrainedTokenizerBase]] = {
    "byte-level": byte_level,
    "byte-level, prefix space": partial(byte_level, prefix_space=True),
    "byte-level, start": partial(byte_level, around="<s> $A"),
    "byte-level, end": partial(byte_level, around="$A </s>"),
    "byte-level, start and end": partial(byte_level, around="<s> $A </s>"),
    "sentencepiece, always": partial(sentence_piece, "always"),
    "sentencepiece, first": partial(sentence_piece, "first", around="<s> $A"),
    "sentencepiece, never": partial(sentence_piece, "never"),
    "sentencepiece, prefix": partial(sentence_piece, "prefix", around="<s> $A"),
    "sentencepiece, end": partial(sentence_piece, "always", around="$A </s>"),
    "unigram, always": partial(unigram, "always"),
    "unigram, first": partial(unigram, "first"),
    "unigram, never": partial(unigram, "never"),
    "unigram, end": partial(unigram, "always", around="$A </s>"),
    "wordpiece": word_piece,
    "wordpiece, start and end": partial(word_piece, around="<s> $A </s>"),
    "word ends": word_ends,
    "slow": Slow,
    "slow, start and end": partial(Slow, adds={"before": "<s>", "after": "</s>"}),
}
"""A way to make each kind."""
