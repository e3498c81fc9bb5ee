"""Recipes: every setting exists, every model exists and fits, and each source gets its own."""

import pytest
import torch

from twofold.data.preparation import Preparation
from twofold.data.values import Images, ImageSource, Text, TextSource
from twofold.data.vocabulary import Vocabulary
from twofold.models.catalogue import find
from twofold.train.recipes import LANGUAGE, RECIPES, recipe
from twofold.train.settings import Settings


def pictures(side, name="photos"):
    images = Images(torch.zeros(2, 1, side, side, dtype=torch.uint8), torch.tensor([0, 1]), ("a", "b"))
    return ImageSource(name, ("x", "y"), Preparation("L", side, side, (0.0,), (1.0,)), images, images, None)


def text(unit, name="notes"):
    part = Text(torch.zeros(9, dtype=torch.int32), 9, ("a",))
    return TextSource(name, Vocabulary(("\ufffd", "a", "b"), unit), part, part, None)


@pytest.mark.parametrize("values", [*RECIPES.values(), LANGUAGE, recipe(pictures(8)), recipe(pictures(64)), recipe(text("word"))])
def test_every_setting_and_every_model_exists(values):
    settings = Settings.of("anything").with_recipe(values)
    assert find(settings.model).task in ("classify", "language")


def test_each_source_gets_the_recipe_that_suits_it():
    assert recipe(pictures(8, "digits")) is RECIPES["digits"]
    assert (recipe(pictures(28))["model"], recipe(pictures(32))["model"]) == ("vgg-mini", "vgg-small")
    library = recipe(text("word", "python-source"))
    assert (
        library == {**RECIPES["python-source"], "model": "word-lstm"} and recipe(text("character", "python-source"))["model"] == "char-lstm"
    )
    assert (recipe(text("character"))["model"], recipe(text("word"))["model"]) == ("char-lstm", "word-lstm")
