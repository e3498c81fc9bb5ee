"""The language of schemes: trees print and are read again, lectures' notations, defaults that go unsaid, and what every mistake is told."""

import random

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from twofold.models.scheme import DEPTH, LAYERS, Group, Layer, Scheme, looks_like, parse
from twofold.models.scheme_words import ALIASES, FORMS, FROM_NOTHING, LETTERS


def numbers(kind, least=1):
    whole = st.integers(least, 300)
    return {
        "whole": st.tuples(whole),
        "size": st.tuples(whole, whole) | whole.map(lambda n: (n, n)),
        "levels": st.lists(whole, min_size=1, max_size=4).map(tuple),
        "decimal": st.integers(0, 999_999).map(lambda n: n / 1_000_000),
    }[kind]


@st.composite
def layers(draw):
    """A layer of any word, with any of its numbers."""
    word = draw(st.sampled_from(sorted(FORMS)))
    form = FORMS[word]
    number = draw(numbers(form.number)) if form.number and draw(st.booleans()) else None
    chosen = draw(st.sets(st.sampled_from(sorted(form.letters)))) if form.letters else set()
    values = {
        letter: draw(st.sampled_from(((0,), (1,))))
        if letter == "b"
        else draw(numbers(LETTERS[letter][1], 0 if letter in FROM_NOTHING else 1))
        for letter in chosen
    }
    return Layer.of(word, number, values, draw(st.sampled_from((0, 1, 1, 1, 3))))


def groups(items):
    return st.builds(Group, st.lists(items, min_size=1, max_size=3).map(tuple), st.booleans(), st.sampled_from((0, 1, 2, 7)))


trees = st.lists(st.recursive(layers(), groups, max_leaves=12), min_size=1, max_size=4).map(lambda items: Scheme(tuple(items)))


def made(item):
    """How many layers an item makes."""
    return item.times * (sum(map(made, item.items)) + item.residual if isinstance(item, Group) else 1)


@given(trees)
@settings(max_examples=150, deadline=None)
def test_a_tree_is_read_again_as_it_was_printed(tree):
    text = str(tree)
    assume(sum(map(made, tree.items)) <= LAYERS)
    assert parse(text) == tree
    assert str(parse(text)) == text
    assert parse(text.upper().replace(" ", " -> ")) == tree
    assert looks_like(text)


@pytest.mark.parametrize(
    ("written", "canonical"),
    {
        "INPUT -> [CONV -> RELU -> POOL]*2 -> [FC -> RELU]*1 -> FC": "[conv relu pool]*2 [fc relu] fc",
        "[CONV -> RELU -> CONV -> RELU -> POOL]*3 → [FC -> RELU] * 2, FC": "[conv relu conv relu pool]*3 [fc relu]*2 fc",
        "INPUT, FC": "fc",
        "input [conv]fc": "[conv] fc",
        "conv32k3s1p1d1g1": "conv32",
        "conv64p2k5": "conv64k5",
        "conv64k3x5p0x2 conv64k5x5": "conv64k3x5p0x2 conv64k5",
        "conv8k3d2p2 conv8k3d2p1": "conv8d2 conv8p1d2",
        "dwm2s2k5 dw": "dwk5s2m2 dw",
        "pool2s2p0 pool3s2 pool3s3 maxpool poolS1": "pool pool3s2 pool3 pool pools1",
        "lppool3n2 lppoolN3": "lppool3 lppooln3",
        "dropout.5 dropout0.50 dropout.250 drop0": "dropout dropout dropout.25 dropout0",
        "spp1_2_4 spp3 leaky.01 leaky1.5 lrn5": "spp spp3 leaky leaky1.5 lrn",
        "relu6 relu*2 {conv32 bn}+ * 2": "relu6 relu*2 {conv32 bn}+*2",
        "conv32b0 fcb1 fc10b0": "conv32b0 fcb1 fc10b0",
        "Linear LeakyReLU.2 swish BatchNorm": "fc leaky.2 silu bn",
    }.items(),
)
def test_what_people_write_has_one_canonical_text(written, canonical):
    assert str(parse(written)) == canonical == str(parse(canonical))


def test_places_are_kept_and_are_no_part_of_the_tree():
    tree = parse("input -> [conv  relu]")
    assert [item.place for item in (tree.items[0], *tree.items[0].items)] == [9, 10, 16]
    assert tree == parse("[conv relu]")


def test_other_names_lead_to_words():
    assert set(ALIASES.values()) <= set(FORMS)
    assert {str(parse(alias)) for alias in ALIASES} == set(ALIASES.values())


@pytest.mark.parametrize(
    ("text", "is_one"),
    {
        "fc": True, "conv32": True, "convk5*3": True, "[x": True, "a -> b": True, "conv rleu": True, "a,b": True, "relu6": True,
        "resnet18": False, "lenet 5": False, "vgg-mini": False, "conv-net": False, "converter": False, "": False, "2conv": False,
    }.items(),
)  # fmt: skip
def test_what_looks_like_a_scheme(text, is_one):
    assert looks_like(text) == is_one


MISTAKES = {  # the text, with ^ before the character that is wrong, and the words
    "[^convv32 relu]": "no layer 'convv'. Did you mean \"conv\"?",
    "^zzzz": "no layer 'zzzz'. There are conv, dw, fc, pool,",
    "conv->pool^?->fc": "'?' has no place in a scheme. Pooling that may be left out is two schemes: write one with it and one without.",
    "conv^(relu)": "'(' has no place in a scheme. Groups are written [...]*2, residual groups {...}+.",
    "conv3^-64": "'-' has no place in a scheme. An arrow is ->, and a 5x5 convolution with 64 filters conv64k5.",
    "conv ^=> fc": "'=' has no place in a scheme. An arrow is ->",
    "conv ^é": "'é' has no place in a scheme. Beside words there are [ ] { } + * -> and commas",
    "^1x1_64": "expected a layer, for example conv32, got '1x1_64'. A 1x1 convolution with 64 filters is conv64k1.",
    "conv3^x3 fc": "a kernel stands behind k, as in conv32k3 or conv32k3x5.",
    "^dwx3": "no layer 'dwx'. Did you mean \"dw\"?",
    "conv32^relu": "expected a blank before 'relu': conv32 relu.",
    "conv32^q5": "conv has no 'q'; it has k (kernel), s (stride), p (padding), d (dilation), g (groups), b (bias, 0 or 1).",
    "relu^5": "relu has no number behind it.",
    "dw^32": "dw has no number behind it. It has as many filters as its map has channels; m2 doubles them.",
    "conv32k^": "expected a number behind k (kernel), such as 3 or 3x5.",
    "conv32k3s1^k5": "k (kernel) is there twice.",
    "conv^0": "expected conv from 1 to 16,777,216, got 0.",
    "conv^99999999999": "expected conv from 1 to 16,777,216, got 99999999999.",
    "conv8k^0": "expected k (kernel) from 1 to 16,777,216, got 0.",
    "fc^b2": "expected b0 (no bias) or b1 (a bias).",
    "dropout^50": "expected the probability of being dropped below 1, got 50. Half? dropout.5",
    "dropout^.1234567": "expected a number with at most 6 decimals",
    "spp^9999_9999": "expected levels with at most 16,777,216 windows in all.",
    "fc ^softmax": "no layer 'softmax'. Leave it out: the loss takes the softmax of the class scores.",
    "fc -> ^OUTPUT": "no layer 'output'. Leave it out: the last fc gives the class scores.",
    "conv ^norm": "no layer 'norm'. Say which: bn, gn, ln or lrn.",
    "[conv]^x2": "How often is written with a star: [conv relu]*2.",
    "conv ^input": "input stands first, or not at all, and its size follows from the data.",
    "^": "expected a layer, for example conv32, got the end.",
    "input^": "expected a layer behind 'input', for example conv32, got the end.",
    "[^]*2": "expected a layer behind '[', for example conv32, got ']'.",
    "conv,^, fc": "expected a layer behind ',', for example conv32, got ','.",
    "^-> fc": "expected a layer, for example conv32, got '->'.",
    "conv ->^": "expected a layer behind '->', for example conv32, got the end.",
    "^*2": "A number of times stands behind a layer or a bracket: [conv relu]*2.",
    "[conv ->^]": "expected a layer behind '->', for example conv32, got ']'.",
    "fc ^[conv relu": "this bracket is never closed: expected ].",
    "[{conv^]": "] closes nothing that is open: expected } first.",
    "conv relu^]": "] closes nothing that is open.",
    "{conv} ^fc": "expected + behind }: {...}+ adds what goes in to what comes out. Only repeated? Write [...].",
    "[conv]^+ fc": "+ stands behind braces: {...}+ adds what goes in to what comes out.",
    "{conv}+*2^+": "+ stands right behind }.",
    "[conv]*^N fc": "expected a number of times behind *, got 'N'. For example: [conv relu]*2",
    "[conv]*^": "expected a number of times behind *, got the end.",
    "[conv]*^1001": "expected at most 1,000 times, got 1001.",
    "[[^[[conv]*1000]*1000]*1000]": "expected at most 2,000 layers in all, and up to here there are 1,000,000. Repeat less often.",
    "fc*1000 fc*1000 ^fc": "expected at most 2,000 layers in all, and up to here there are 2,001. Repeat less often.",
    "[" * DEPTH + "^[conv": f"expected brackets at most {DEPTH} deep.",
}  # fmt: skip


@pytest.mark.parametrize("marked", MISTAKES)
def test_a_mistake_is_shown_at_its_character(marked):
    place, text = marked.index("^"), marked.replace("^", "")
    with pytest.raises(ValueError) as error:
        parse(text)
    assert str(error.value).startswith(f"scheme, character {place + 1}: ") and MISTAKES[marked] in str(error.value)
    assert error.value.__notes__ == [f"    {text}\n    {' ' * place}^"]


def test_of_a_long_text_the_place_is_shown():
    text = "conv relu " * 40 + "polo " + "conv relu " * 40
    with pytest.raises(ValueError, match="Did you mean") as error:
        parse(text)
    line, caret = error.value.__notes__[0].split("\n")
    assert line[caret.index("^") :].startswith("polo conv") and line.startswith("    … ") and line.endswith(" …") and len(line) < 130


def test_a_text_that_is_too_long_is_not_read():
    with pytest.raises(ValueError, match=r"expected at most 20,000 characters, got 80,000. Repeat a group"):
        parse("conv relu " * 8000)


def test_broken_texts_raise_nothing_else():
    draw = random.Random(0)
    good = "INPUT -> [conv32k3 relu pool3s2]*2 {conv64 bn relu conv64 bn}+*2 spp1_2 [fc128 relu dropout.5]*1 fc"
    alphabet = "[]{}+*->,→ .x_0123456789abckpsdfcgé\n\t\0" + "".join(FORMS)
    told = []
    for _ in range(400):
        text = list(good)
        for _ in range(draw.randint(1, 6)):
            at = draw.randrange(len(text))
            text[at : at + draw.randint(0, 3)] = draw.choices(alphabet, k=draw.randint(0, 3))
        try:
            tree = parse("".join(text))
        except ValueError as error:
            told.append(error)
        else:
            assert parse(str(tree)) == tree
    assert len(told) > 200
    assert all(str(error).startswith("scheme, character ") and error.__notes__ for error in told)
