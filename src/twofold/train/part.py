"""A part of the settings: frozen, checked, with a sentence under each value. Parts stand beside what they set; settings.py joins them."""

from pydantic import BaseModel, ConfigDict


class Part(BaseModel):
    """Values by flat names that no other part has; a sentence in quotes under each is its help on the command line."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)
