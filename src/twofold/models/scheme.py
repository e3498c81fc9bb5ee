"""A small language for networks: a scheme is a text, and a text becomes a tree that prints back.

    scheme    = [ "input" ] sequence
    sequence  = item { [ separator ] item }
    item      = ( layer | "[" sequence "]" | "{" sequence "}" "+" ) [ "*" whole ]         [...]*3: in a row; {...}+: y = f(x) + x
    layer     = word [ number ] { letter number }                                         conv64k5s2: 64 filters, kernel 5, stride 2
    number    = whole | whole "x" whole | whole { "_" whole } | decimal                   64, 3x5 (rows, columns), 1_2_4 (levels), .5
    separator = "->" | "→" | ","

Blanks part words; case does not matter. Which number and which letters a word has stands in scheme_words.py, what they mean in
docs/schemes.md. In print, separators are blanks, words small, letters in one order, and what is so by default is left out.

>>> tree = parse("INPUT -> [CONV32k3 -> RELU -> POOL2]*2 -> FC")
>>> str(tree)
'[conv32 relu pool]*2 fc'
>>> parse(str(tree)) == tree
True
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import NamedTuple, NoReturn

from twofold.models.config import LARGEST
from twofold.models.scheme_words import (
    ALIASES,
    ELSEWHERE,
    FORMS,
    FROM_NOTHING,
    LETTERS,
    NUMBERS,
    PLACES,
    Form,
    Kind,
    Number,
    settle,
    word_of,
    written,
)

DEPTH, REPEATS, LAYERS, LENGTH = 16, 1000, 2000, 20_000  # of brackets, of one item, of the whole net, of the text


@dataclass(frozen=True)
class Layer:
    """One layer: its word, the number behind it, its letters in the order of LETTERS; nothing that is so by default. place: in the text."""

    word: str
    number: Number | None = None
    letters: tuple[tuple[str, Number], ...] = ()
    times: int = 1
    place: int = field(default=0, compare=False)

    @classmethod
    def of(cls, word: str, number: Number | None, letters: Mapping[str, Number], times: int = 1, place: int = 0) -> "Layer":
        """The layer without what is so by default."""
        kept = dict(letters)
        for letter in letters:
            others = {name: value for name, value in kept.items() if name != letter}
            if settle(word, number, others).get(letter) == kept[letter]:
                kept = others
        shown = None if number == FORMS[word].default else number
        return cls(word, shown, tuple((letter, kept[letter]) for letter in LETTERS if letter in kept), times, place)

    @property
    def settings(self) -> dict[str, Number | None]:
        """Every letter's number, and the word's own under ""; None where it depends on where the layer stands."""
        return settle(self.word, self.number, dict(self.letters))

    def __str__(self) -> str:
        own = "" if self.number is None else written(self.number, FORMS[self.word].number)
        letters = "".join(f"{letter}{written(value, LETTERS[letter][1])}" for letter, value in self.letters)
        return f"{self.word}{own}{letters}{_repeated(self.times)}"


@dataclass(frozen=True)
class Group:
    """[...]: the items in a row, so many times. residual: {...}+, whose output is added to its input."""

    items: "tuple[Item, ...]"
    residual: bool = False
    times: int = 1
    place: int = field(default=0, compare=False)

    def __str__(self) -> str:
        inside = " ".join(map(str, self.items))
        return (f"{{{inside}}}+" if self.residual else f"[{inside}]") + _repeated(self.times)


Item = Layer | Group


@dataclass(frozen=True)
class Scheme:
    """The whole tree; str() is its canonical text."""

    items: tuple[Item, ...]

    def __str__(self) -> str:
        return " ".join(map(str, self.items))


def parse(text: str) -> Scheme:
    """The tree of a text. Raises ValueError, with the text and a caret beneath the character that is wrong as its note."""
    return _Parser(text).scheme()


def looks_like(text: str) -> bool:
    """Whether a text was meant as a scheme, right or wrong: it has brackets, arrows or commas, or a word of the language."""
    if re.search(r"[\[\]{},→]|->", text):
        return True
    return any(re.fullmatch(r"[a-z][\w.]*(\*\d+)?", word) and (word == "input" or word_of(word)) for word in text.lower().split())


def wrong(text: str, place: int, why: str) -> ValueError:
    """The mistake, as one paragraph; the text, and a caret beneath its character, as the note."""
    line = "".join(c if c.isprintable() else " " for c in text)
    first = max(0, min(place - 60, len(line) - 110))
    before, after = "… " if first else "", " …" if first + 110 < len(line) else ""
    error = ValueError(f"scheme, character {place + 1}: {why}")
    error.add_note(f"    {before}{line[first : first + 110]}{after}\n    {' ' * (len(before) + place - first)}^")
    return error


def _repeated(times: int) -> str:
    return "" if times == 1 else f"*{times}"


class _Token(NamedTuple):
    kind: str  # "word", "arrow", "end", or the mark itself
    text: str
    place: int


_TOKEN = re.compile(r"\s+|(?P<arrow>->|→|,)|(?P<mark>[\[\]{}+*])|(?P<word>[A-Za-z0-9._]+)")


class _Parser:
    """Recursive descent: one method for a rule of the grammar. Items come with the number of layers that they make."""

    def __init__(self, text: str) -> None:
        self.text, self.at = text, 0
        if len(text) > LENGTH:
            raise ValueError(f"scheme: expected at most {LENGTH:,} characters, got {len(text):,}. Repeat a group: [conv relu]*4.")
        self.tokens = list(self._tokens())

    def scheme(self) -> Scheme:
        first = self.tokens[0]
        if first.kind == "word" and first.text == "input":
            self.at = 2 if self.tokens[1].kind == "arrow" else 1
        items, _ = self._sequence("end", 0, first.place)
        return Scheme(items)

    def _tokens(self) -> "list[_Token]":
        tokens, at = [], 0
        while at < len(self.text):
            found = _TOKEN.match(self.text, at)
            if found is None:
                self._strange(at)
            if found.lastgroup is not None:
                kind = found[0] if found.lastgroup == "mark" else found.lastgroup
                tokens.append(_Token(kind, found[0].lower(), at))
            at = found.end()
        return [*tokens, _Token("end", "", len(self.text.rstrip()))]

    def _strange(self, place: int) -> NoReturn:
        hints = {
            "?": "Pooling that may be left out is two schemes: write one with it and one without.",
            "(": "Groups are written [...]*2, residual groups {...}+.",
            ")": "Groups are written [...]*2, residual groups {...}+.",
            "-": "An arrow is ->, and a 5x5 convolution with 64 filters conv64k5.",
            "=": "An arrow is ->, and a kernel of 5 is k5.",
        }
        after = "a layer, a bracket or an arrow"
        hint = hints.get(self.text[place], f"Beside words there are [ ] {{ }} + * -> and commas; expected {after}.")
        self._refuse(place, f"{self.text[place]!r} has no place in a scheme. {hint}")

    def _refuse(self, place: int, why: str) -> NoReturn:
        raise wrong(self.text, place, why)

    def _sequence(self, closing: str, depth: int, opened: int) -> tuple[tuple[Item, ...], int]:
        """The items up to the closing mark, which is taken, and the number of their layers."""
        items: list[Item] = []
        layers, arrow = 0, None
        while (token := self.tokens[self.at]).kind != closing or arrow is not None or not items:
            if token.kind == "arrow" and items and arrow is None:
                self.at, arrow = self.at + 1, token
                continue
            item, made = self._item(token, depth, closing, opened)
            arrow = None
            items.append(item)
            layers += made
            self._few(layers, item.place)
        self.at += 1
        return tuple(items), layers

    def _item(self, token: _Token, depth: int, closing: str, opened: int) -> tuple[Item, int]:
        if token.kind not in ("word", "[", "{"):
            self._misplaced(token, closing, opened)
        self.at += 1
        if token.kind == "word":
            layer = self._layer(token)
            times = self._times()
            self._few(times, token.place)
            return Layer(layer.word, layer.number, layer.letters, times, token.place), times
        if depth == DEPTH:
            self._refuse(token.place, f"expected brackets at most {DEPTH} deep.")
        residual = token.kind == "{"
        items, layers = self._sequence("}" if residual else "]", depth + 1, token.place)
        if residual:
            after = self.tokens[self.at]
            if after.kind != "+":
                self._refuse(after.place, "expected + behind }: {...}+ adds what goes in to what comes out. Only repeated? Write [...].")
            self.at += 1
        elif self.tokens[self.at].kind == "+":
            self._refuse(self.tokens[self.at].place, "+ stands behind braces: {...}+ adds what goes in to what comes out.")
        times = self._times()
        made = (layers + residual) * times
        self._few(made, token.place)
        return Group(items, residual, times, token.place), made

    def _few(self, layers: int, place: int) -> None:
        if layers > LAYERS:
            self._refuse(place, f"expected at most {LAYERS:,} layers in all, and up to here there are {layers:,}. Repeat less often.")

    def _misplaced(self, token: _Token, closing: str, opened: int) -> NoReturn:
        if token.kind == "end" and closing != "end":
            self._refuse(opened, f"this bracket is never closed: expected {closing}.")
        before = self.tokens[self.at - 1] if self.at else None
        behind = f" behind {before.text!r}" if before is not None else ""
        got = repr(token.text) if token.text else "the end"
        hints = {"*": " A number of times stands behind a layer or a bracket: [conv relu]*2.", "+": " + stands right behind }."}
        hint = hints.get(token.kind, "")
        if token.kind in "]}" and not (before is not None and before.kind in ("[", "{", "arrow")):
            self._refuse(
                token.place, f"{token.text} closes nothing that is open{f': expected {closing} first' if closing in ']}' else ''}."
            )
        self._refuse(token.place, f"expected a layer{behind}, for example conv32, got {got}.{hint}")

    def _times(self) -> int:
        """The number behind *, 1 where there is none."""
        if self.tokens[self.at].kind != "*":
            return 1
        number = self.tokens[self.at + 1]
        if number.kind != "word" or not number.text.isdecimal():
            given = repr(self.text[number.place :][: len(number.text)]) if number.text else "the end"
            self._refuse(number.place, f"expected a number of times behind *, got {given[:40]}. For example: [conv relu]*2")
        if len(number.text) > 8 or int(number.text) > REPEATS:
            self._refuse(number.place, f"expected at most {REPEATS:,} times, got {number.text[:20]}.")
        self.at += 2
        return int(number.text)

    def _layer(self, token: _Token) -> Layer:
        word = word_of(token.text)
        if word is None:
            self._unknown(token)
        name = ALIASES.get(word, word)
        form, at = FORMS[name], len(word)
        number: Number | None = None
        if token.text[at : at + 1] in (*"0123456789.", "_") and at < len(token.text):
            if not form.number:
                hint = " It has as many filters as its map has channels; m2 doubles them." if name == "dw" else ""
                self._refuse(token.place + at, f"{word} has no number behind it.{hint}")
            number, at = self._number(token, at, form.number, word, 1)
        letters: dict[str, Number] = {}
        while at < len(token.text):
            letter = token.text[at]
            if letter not in form.letters:
                self._no_letter(token, at, word, form)
            if letter in letters:
                self._refuse(token.place + at, f"{letter} ({LETTERS[letter][0]}) is there twice.")
            least, place = 0 if letter in FROM_NOTHING else 1, token.place + at
            letters[letter], at = self._number(token, at + 1, LETTERS[letter][1], f"{letter} ({LETTERS[letter][0]})", least)
            if letter == "b" and letters[letter] not in ((0,), (1,)):
                self._refuse(place, "expected b0 (no bias) or b1 (a bias).")
        if name == "dropout" and isinstance(number, float) and number >= 1:
            self._refuse(token.place + len(word), f"expected the probability of being dropped below 1, got {number:g}. Half? dropout.5")
        return Layer.of(name, number, letters, place=token.place)

    def _number(self, token: _Token, at: int, kind: Kind, what: str, least: int) -> tuple[Number, int]:
        """The number of that kind at a place in a word, and where it ends."""
        found = NUMBERS[kind].match(token.text, at)
        if found is None:
            example = {"whole": "4", "size": "3 or 3x5", "levels": "1_2_4", "decimal": ".5"}[kind or "whole"]
            self._refuse(token.place + at, f"expected a number behind {what}, such as {example}.")
        written = found[0]
        if kind == "decimal":
            if len(written) > 12 or len(written.partition(".")[2]) > PLACES:
                self._refuse(token.place + at, f"expected a number with at most {PLACES} decimals, got {written[:20]}.")
            return float(written), found.end()
        parts = re.split("[x_]", written)
        if any(len(part) > 8 or not least <= int(part) <= LARGEST for part in parts):
            self._refuse(token.place + at, f"expected {what} from {least} to {LARGEST:,}, got {written[:20]}.")
        numbers = tuple(map(int, parts))
        if kind == "levels" and sum(n * n for n in numbers) > LARGEST:
            self._refuse(token.place + at, f"expected levels with at most {LARGEST:,} windows in all.")
        return (numbers * 2 if kind == "size" and len(numbers) == 1 else numbers), found.end()

    def _unknown(self, token: _Token) -> NoReturn:
        letters = re.match(r"[a-z]*", token.text)
        assert letters is not None
        if not letters[0]:
            hint = " A 1x1 convolution with 64 filters is conv64k1." if re.match(r"\d+x\d+", token.text) else ""
            self._refuse(token.place, f"expected a layer, for example conv32, got {token.text[:40]!r}.{hint}")
        if letters[0] == "input":
            self._refuse(token.place, "input stands first, or not at all, and its size follows from the data.")
        if letters[0] in ELSEWHERE:
            self._refuse(token.place, f"no layer {letters[0]!r}. {ELSEWHERE[letters[0]]}")
        near = get_close_matches(letters[0], (*FORMS, *ALIASES), 1, cutoff=0.5)
        hint = f'Did you mean "{near[0]}"?' if near else f"There are {', '.join(FORMS)}."
        self._refuse(token.place, f"no layer {letters[0][:40]!r}. {hint}")

    def _no_letter(self, token: _Token, at: int, word: str, form: Form) -> NoReturn:
        rest = token.text[at:]
        if word_of(rest):
            self._refuse(token.place + at, f"expected a blank before {rest!r}: {token.text[:at]} {rest}.")
        if rest[0] == "x" and "k" in form.letters:
            self._refuse(token.place + at, f"a kernel stands behind k, as in {word}32k3 or {word}32k3x5.")
        has = ", ".join(f"{letter} ({LETTERS[letter][0]})" for letter in form.letters)
        self._refuse(
            token.place + at, f"{word} has no {rest[0]!r}; it has {has}." if has else f"{word} has nothing behind it, got {rest[:40]!r}."
        )
