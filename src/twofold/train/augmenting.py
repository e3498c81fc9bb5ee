"""The settings of augmentation: words, checked when they are given, that say what may happen to training pictures."""

from pydantic import field_validator

from twofold.data.augment import Recipe
from twofold.data.augment_text import read_recipe
from twofold.train.part import Part


class Augmentation(Part):
    """How training pictures are varied, and nothing else: validation and test pictures stay as they are."""

    augment: str = "none"
    """Pictures only: none, light, standard, digits, strong, or transforms: "flip rotate=15 crop=4 colour=0.2 erase=0.25"."""

    @field_validator("augment")
    @classmethod
    def _readable(cls, words: str) -> str:
        read_recipe(words)
        return words

    @property
    def recipe(self) -> Recipe:
        """What the words stand for."""
        return read_recipe(self.augment)
