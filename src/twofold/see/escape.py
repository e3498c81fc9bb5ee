"""Text from outside made harmless in HTML, as content and as the value of an attribute."""

import html
import re
from typing import Final

# HTML forbids these characters even as references: C0 and C1 controls but tab and line feed, surrogates, non-characters.
FORBIDDEN: Final = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff\ufdd0-\ufdef\ufffe\uffff]")


def escape(text: object) -> str:
    """Return str(text) with & < > and both quotes as references, line ends as LF, and forbidden characters as U+FFFD."""
    lines = str(text).replace("\r\n", "\n").replace("\r", "\n")
    return html.escape(FORBIDDEN.sub("\ufffd", lines), quote=True)
