"""Text that the model wrote, as preformatted blocks of HTML, one a temperature."""

from collections.abc import Sequence
from typing import Final, NamedTuple

from twofold.see.escape import escape

LONGEST: Final = 20_000  # characters of one sample


class Sample(NamedTuple):
    """A heading, such as "temperature 0.5", and the text as it came."""

    title: str
    text: str


def samples(written: Sequence[Sample]) -> str:
    """Return one HTML section a sample: its title as a third-level heading, its text with every space and line break kept."""
    return "\n".join(_block(sample) for sample in written)


def _block(sample: Sample) -> str:
    left_out = len(sample.text) - LONGEST
    more = f"<p>{left_out:,} more characters are not shown.</p>\n" if left_out > 0 else ""
    # HTML drops the first line break after <pre>: this one, so that the sample keeps its own.
    text = f"<pre>\n{escape(sample.text[:LONGEST])}</pre>"
    return f"<section>\n<h3>{escape(sample.title)}</h3>\n{text}\n{more}</section>"
