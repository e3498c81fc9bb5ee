"""The vocabulary: which piece of text each code stands for.

    encode   text -> codes        decode(encode(text)) = text, but for unknown pieces, which come back as U+FFFD
    unit     "character": one code point        "word": a word or a run of signs with the space before it, or a run of spaces

Code 0 is the unknown piece. The vocabulary is made from training text alone: what is rare there is as unknown as what is new later.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

UNITS = ("character", "word")
UNKNOWN = "\ufffd"
RARE = 5  # a character of a long text that occurs less often is unknown
LONG = 10_000  # characters
WORDS = 20_000
_PIECE = re.compile(r" ?\w+| ?[^\w\s]+|\s+")
_CHUNK = 1 << 22  # characters encoded at a time: a code point takes 4 bytes, an index 8
_CODE_POINTS = 0x110000


class Unknown(NamedTuple):
    """A piece of text that is not in the vocabulary, and where it begins (characters from the start)."""

    token: str
    position: int


@dataclass(frozen=True)
class Vocabulary:
    """tokens[code] is the text of a code. Raises ValueError where two codes would mean the same or one means nothing."""

    tokens: tuple[str, ...]
    unit: str = "character"

    def __post_init__(self) -> None:
        if self.unit not in UNITS:
            raise ValueError(f"vocabulary unit: expected one of {', '.join(UNITS)}, got {self.unit!r}")
        if not self.tokens or self.tokens[0] != UNKNOWN:
            first = repr(self.tokens[0]) if self.tokens else "an empty vocabulary"
            raise ValueError(f"vocabulary tokens: expected the unknown token {UNKNOWN!r} at index 0, got {first}")
        for index, token in enumerate(self.tokens):
            if not isinstance(token, str) or not token:
                raise ValueError(f"vocabulary tokens: expected a non-empty string at index {index}, got {token!r}")
            if self.unit == "character" and len(token) != 1:
                raise ValueError(f"vocabulary tokens: expected single characters, got {token!r} at index {index}")
        twice = [token for token, count in Counter(self.tokens).items() if count > 1]
        if twice:
            raise ValueError(f"vocabulary tokens: expected each once, got {len(twice)} more than once: {twice[0]!r} is the first")

    def __len__(self) -> int:
        return len(self.tokens)

    @classmethod
    def of(cls, text: str, unit: str = "character", limit: int = WORDS) -> Vocabulary:
        """The vocabulary of a training text.

        Characters in the order of their code points, those that occur less than 5 times left out where the text has
        10,000 characters or more. Words by frequency (then alphabetically), at most `limit`.
        """
        if unit == "word":
            counts = Counter(_PIECE.findall(text))
            counts.pop(UNKNOWN, None)
            kept = sorted(counts, key=lambda word: (-counts[word], word))[:limit]
        else:
            counts = Counter(text)
            counts.pop(UNKNOWN, None)
            least = RARE if len(text) >= LONG else 1
            kept = sorted(character for character, count in counts.items() if count >= least)
        return cls((UNKNOWN, *kept), unit)

    def encode(self, text: str) -> Tensor:
        """The codes of a text, int32, one per character or word."""
        if not isinstance(text, str):
            raise ValueError(f"Vocabulary.encode: expected a text (str), got {type(text).__name__}")
        if self.unit == "word":
            return torch.tensor([self._codes.get(word, 0) for word in _PIECE.findall(text)], dtype=torch.int32)
        codes = np.empty(len(text), dtype=np.int32)
        for start in range(0, len(text), _CHUNK):
            part = text[start : start + _CHUNK]
            codes[start : start + len(part)] = self._table[_code_points(part)]
        return torch.from_numpy(codes)

    def decode(self, codes: Tensor | Sequence[int]) -> str:
        """The text of some codes. Raises ValueError on a code outside the vocabulary."""
        numbers = codes.tolist() if isinstance(codes, Tensor) else list(codes)
        for position, code in enumerate(numbers):
            if type(code) is not int or not 0 <= code < len(self.tokens):
                raise ValueError(
                    f"Vocabulary.decode: expected codes from 0 to {len(self.tokens) - 1}, got {code!r} at position {position}. "
                    "Was the text encoded with another vocabulary?"
                )
        return "".join([self.tokens[code] for code in numbers])

    def unknown(self, text: str) -> tuple[Unknown, ...]:
        """Every piece of the text that is not in the vocabulary, in order, with its position."""
        if self.unit == "word":
            found = ((m.group(), m.start()) for m in _PIECE.finditer(text))
            return tuple(Unknown(word, start) for word, start in found if not self._codes.get(word, 0))
        return tuple(Unknown(text[i], i) for i in np.flatnonzero(self.encode(text).numpy() == 0).tolist())

    def as_dict(self) -> dict[str, Any]:
        """Plain values for model.json."""
        return {"unit": self.unit, "tokens": list(self.tokens)}

    @classmethod
    def from_dict(cls, values: object) -> Vocabulary:
        """The inverse of as_dict. Raises ValueError on anything that no vocabulary can be."""
        if not isinstance(values, dict) or set(values) != {"unit", "tokens"} or not isinstance(values["tokens"], list):
            raise ValueError("vocabulary: expected an object with keys unit and tokens (a list). Was model.json edited by hand?")
        return cls(tuple(values["tokens"]), values["unit"])

    @cached_property
    def _codes(self) -> dict[str, int]:
        return {token: code for code, token in enumerate(self.tokens)}

    @cached_property
    def _table(self) -> np.ndarray:
        """The code of every code point: one look-up per character."""
        table = np.zeros(_CODE_POINTS, dtype=np.int32)
        table[[ord(token) for token in self.tokens]] = np.arange(len(self.tokens), dtype=np.int32)
        return table


def _code_points(text: str) -> np.ndarray:
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), dtype=np.uint32)
