"""The settings of augmentation: checked words, kept as the user wrote them."""

import pytest

from twofold.data.augment import Recipe
from twofold.data.augment_text import read_recipe
from twofold.train.augmenting import Augmentation


def test_words_are_kept_and_understood():
    assert Augmentation().recipe == Recipe()
    part = Augmentation(augment="strong flip=both")
    assert part.augment == "strong flip=both" and part.recipe == read_recipe("strong flip=both")
    assert Augmentation(**part.model_dump()) == part


def test_the_wrong_word_is_named():
    with pytest.raises(ValueError, match=r'augment, word 2 \("rotat=5"\): no transform'):
        Augmentation(augment="flip rotat=5")
