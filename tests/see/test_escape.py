"""Nothing that comes from outside can become markup."""

import html
from html.parser import HTMLParser

import pytest

from twofold.see.escape import escape

HOSTILE = [
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "' onmouseover='alert(1)",
    "&lt;script&gt;",
    "]]><!-- --!><style>",
]


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_text_comes_back_as_text(text):
    escaped = escape(text)
    assert not set("<>\"'") & set(escaped)
    assert html.unescape(escaped) == text


@pytest.mark.parametrize("text", HOSTILE)
def test_a_browser_sees_no_tag_in_content_or_attribute(text):
    seen = []
    parser = HTMLParser()
    parser.handle_starttag = lambda tag, attributes: seen.append((tag, attributes))
    parser.feed(f'<p title="{escape(text)}">{escape(text)}</p>')
    assert seen == [("p", [("title", text)])]


def test_forbidden_characters_are_replaced_and_line_ends_are_one():
    assert escape("a\x00\x1b[31m\ud800\x7f\ufffe") == "a\ufffd\ufffd[31m\ufffd\ufffd\ufffd"
    assert escape("1\r\n2\r3\t4") == "1\n2\n3\t4"


def test_what_is_no_text_is_said_as_text():
    assert escape(0.5) == "0.5"
