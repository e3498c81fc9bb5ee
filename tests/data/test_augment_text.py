"""Words: read, written, and the wrong one named."""

import re

import pytest

from twofold.data.augment import Recipe
from twofold.data.augment_colour import Colour
from twofold.data.augment_elastic import Elastic
from twofold.data.augment_erase import Erasing
from twofold.data.augment_geometry import Geometry
from twofold.data.augment_text import PRESETS, read_recipe, write_recipe

READ = {
    "": Recipe(),
    "none": Recipe(),
    "flip rotate=15 crop=4": Recipe(Geometry("horizontal", rotate=15, crop=4)),
    "  flip=both\tresized-crop=0.25 ": Recipe(Geometry("both", resized_crop=0.25)),
    "colour=0.2 hue=0.1": Recipe(colour=Colour(0.2, 0.2, 0.2, 0.1)),
    "contrast=0.3 erase=0.25 cutout=8": Recipe(colour=Colour(contrast=0.3), erasing=Erasing(0.25, 8)),
    "elastic=0.05 edge=reflect": Recipe(elastic=Elastic(0.05), edge="reflect"),
    "standard rotate=10 crop=2": Recipe(Geometry("horizontal", rotate=10, crop=2)),
    "strong brightness=0": read_recipe("strong contrast=0.3 saturation=0.3 brightness=0"),
}


@pytest.mark.parametrize("text", READ)
def test_words_are_read_and_written(text):
    assert read_recipe(text) == READ[text]
    assert read_recipe(write_recipe(READ[text])) == READ[text]


def test_a_recipe_is_written_in_one_order():
    assert write_recipe(read_recipe("edge=reflect erase=0.25 color=0.2 crop=4 flip")) == "flip crop=4 colour=0.2 erase=0.25 edge=reflect"
    assert write_recipe(read_recipe("flip=vertical colour=0.2 hue=0.1")) == "flip=vertical colour=0.2 hue=0.1"
    assert write_recipe(Recipe()) == "none"


@pytest.mark.parametrize("name", PRESETS)
def test_presets_are_written_as_they_stand(name):
    assert write_recipe(read_recipe(name)) == (PRESETS[name] or "none")


BAD = {
    "flip rotat=15": 'augment, word 2 ("rotat=15"): no transform \'rotat\'. Did you mean "rotate"?',
    "zzz": "augment, word 1 (\"zzz\"): no transform 'zzz'. There are flip, rotate",
    "flip rotate=-5": 'augment, word 2 ("rotate=-5"): rotate: expected a number from 0 to 180 (degrees to either side), got -5.0.',
    "crop=wide": "augment, word 1 (\"crop=wide\"): crop: expected a number, got 'wide'.",
    "crop": 'augment, word 1 ("crop"): crop: expected an amount, as in crop=0.2.',
    "flip=left": 'augment, word 1 ("flip=left"): flip: expected "horizontal", "vertical", "both" or "alternate", got \'left\'.',
    "flip=": 'augment, word 1 ("flip="): flip: expected "horizontal"',
    "crop=4 flip crop=2": 'augment, word 3 ("crop=2"): crop is set twice. Say it once.',
    "colour=0.2 contrast=0.1": 'augment, word 2 ("contrast=0.1"): contrast is set twice.',
    "rotate=5 standard": 'augment, word 2 ("standard"): expected a preset to stand first, as in "standard rotate=5".',
    "edge=mirror": "augment, word 1 (\"edge=mirror\"): edge: expected zeros or reflect, got 'mirror'.",
    "hue=nan": 'augment, word 1 ("hue=nan"): hue: expected a number from 0 to 0.5',
}


@pytest.mark.parametrize("text", BAD)
def test_the_wrong_word_is_named(text):
    with pytest.raises(ValueError, match=re.escape(BAD[text])):
        read_recipe(text)
