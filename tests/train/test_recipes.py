"""Recipes: every setting exists, every model exists and fits, and each source gets its own."""

import pytest
import torch

from twofold.data.preparation import Preparation
from twofold.data.values import Images, ImageSource, Text, TextSource
from twofold.data.vocabulary import Vocabulary
from twofold.models.catalogue import find
from twofold.train.recipes import LANGUAGE, RECIPES, named, recipe
from twofold.train.settings import Settings


def pictures(side, name="photos"):
    images = Images(torch.zeros(2, 1, side, side, dtype=torch.uint8), torch.tensor([0, 1]), ("a", "b"))
    return ImageSource(name, ("x", "y"), Preparation("L", side, side, (0.0,), (1.0,)), images, images, None)


def text(unit, name="notes"):
    part = Text(torch.zeros(9, dtype=torch.int32), 9, ("a",))
    return TextSource(name, Vocabulary(("\ufffd", "a", "b"), unit), part, part, None)


SETTINGS = [each.values for each in RECIPES.values()]


@pytest.mark.parametrize("values", [*SETTINGS, LANGUAGE, recipe(pictures(8)), recipe(pictures(64)), recipe(text("word"))])
def test_every_setting_and_every_model_exists(values):
    settings = Settings.of("anything").with_recipe(values)
    assert find(settings.model).task in ("classify", "language")


def test_each_source_gets_the_recipe_that_suits_it():
    assert recipe(pictures(8, "digits")) is RECIPES["digits"].values
    assert (recipe(pictures(28))["model"], recipe(pictures(32))["model"]) == ("vgg-mini", "vgg-small")
    library = recipe(text("word", "python-source"))
    assert library == {**RECIPES["python-source"].values, "model": "word-lstm"}
    assert recipe(text("character", "python-source"))["model"] == "char-lstm"
    assert (recipe(text("character"))["model"], recipe(text("word"))["model"]) == ("char-lstm", "word-lstm")


def test_a_recipe_may_be_asked_for_by_name():
    assert recipe(pictures(28), "fashion-mnist") == RECIPES["fashion-mnist"].values
    with pytest.raises(ValueError, match=r"recipe 'tiny-shakespeare' is for language, but photos is for classify. Take one of digits"):
        recipe(pictures(28), "tiny-shakespeare")
    with pytest.raises(ValueError, match=r"no recipe 'digit': did you mean \"digits\"\? There are"):
        named("digit")


def test_the_config_of_a_recipe_is_for_its_own_model():
    assert Settings.of("x").with_recipe(RECIPES["fashion-mnist"].values).config
    assert Settings.of("x", model="lenet5").with_recipe(RECIPES["fashion-mnist"].values).config == {}


def test_what_a_recipe_needs_has_to_be_given():
    Settings.of("x", init="he").require("recipe 'y'", ("init",))
    with pytest.raises(ValueError, match=r"recipe 'y' needs init: give --init \(from Python: init=...\)"):
        Settings.of("x").require("recipe 'y'", ("init",))
