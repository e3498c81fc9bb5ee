"""Samples keep every space and line break, and run nothing."""

import html
import re

from twofold.see.samples import LONGEST, Sample, samples


def test_each_sample_is_a_heading_and_a_block_in_order():
    written = samples([Sample("temperature 0.5", "a"), Sample("temperature 1.0", "b"), Sample("temperature 1.5", "c")])
    assert re.findall(r"<h3>(.*?)</h3>\n<pre>\n(.*?)</pre>", written, re.S) == [
        ("temperature 0.5", "a"),
        ("temperature 1.0", "b"),
        ("temperature 1.5", "c"),
    ]


def test_the_text_survives_as_it_is():
    text = "\n\n  def f(x):\n\treturn x < 1 & x\n\n"
    block = re.search(r"<pre>\n(.*?)</pre>", samples([Sample("", text)]), re.S)[1]
    assert html.unescape(block) == text


def test_markup_in_title_and_text_is_only_text():
    written = samples([Sample("<b>", "</pre><script>alert(1)</script>")])
    assert "&lt;b&gt;" in written
    assert "<script" not in written
    assert written.count("</pre>") == 1


def test_a_text_that_is_too_long_is_cut_and_says_so():
    written = samples([Sample("", "x" * (LONGEST + 1234))])
    assert written.count("x") == LONGEST
    assert "<p>1,234 more characters are not shown.</p>" in written
