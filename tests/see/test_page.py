"""The page is whole, valid, and closed to the outside."""

import base64
from html.parser import HTMLParser
from itertools import pairwise

import pytest

from twofold.see import style
from twofold.see.page import Picture, Report, Table, flatten, page
from twofold.see.samples import Sample

VOID = {"meta", "link", "img", "br"}
EVIL = "<script>alert('1')</script>\""
PNG = b"\x89PNG"


class Reader(HTMLParser):
    """Collects the tags with their attributes and the visible text, and refuses tags that do not close in order."""

    def __init__(self, written):
        super().__init__()
        self.tags, self.open, self.text = [], [], ""
        self.feed(written)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if "style" not in self.open:
            self.text += data

    def all(self, tag):
        return [attributes for found, attributes in self.tags if found == tag]


def full(text="text"):
    return Report(
        title=f"Run {text}",
        summary=[(f"what {text}", f"value {text}")],
        settings={f"data {text}": {"source": text, "batch": 64}, "seed": 0},
        pictures=[Picture("curves", style.card("a", "b"), f"caption {text}", f"alt {text}")],
        tables=[Table(f"table {text}", (f"class {text}", "recall"), [(text, 0.5)])],
        samples=[Sample(f"sample {text}", text)],
        notes=[f"note {text}"],
    )


def read(contents):
    return Reader(page(contents, {picture.name: PNG for picture in contents.pictures}))


@pytest.mark.parametrize("contents", [full(), Report("only a title")], ids=["full", "empty"])
def test_tags_close_in_order_and_the_frame_is_html5(contents):
    written = page(contents, {"curves": PNG})
    assert written.startswith('<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">')
    reader = read(contents)
    assert len(reader.all("title")) == len(reader.all("h1")) == len(reader.all("main")) == 1
    assert {"name": "viewport", "content": "width=device-width, initial-scale=1"} in reader.all("meta")


def test_the_policy_allows_inline_pictures_and_style_alone():
    assert {
        "http-equiv": "Content-Security-Policy",
        "content": "default-src 'none'; img-src data:; style-src 'unsafe-inline'",
    } in read(full()).all("meta")


def test_no_address_outside_and_no_script():
    reader = read(full(EVIL))
    addresses = [value for _, attributes in reader.tags for name, value in attributes.items() if name in ("src", "href")]
    assert addresses == ["data:,", "data:image/png;base64," + base64.b64encode(PNG).decode()]
    assert not {"script", "iframe", "object", "form", "a"} & {tag for tag, _ in reader.tags}
    assert not [name for _, attributes in reader.tags for name in attributes if name.startswith("on")]
    assert "url(" not in page(full(), {"curves": PNG})


def test_every_text_from_outside_arrives_as_text():
    reader = read(full(EVIL))
    for place in ("Run", "what", "value", "data", "caption", "table", "class", "sample", "note"):
        assert f"{place} {EVIL}" in reader.text
    assert reader.all("img")[0]["alt"] == f"alt {EVIL}"
    assert reader.text.count(EVIL) == 14


def test_headings_descend_without_gaps():
    levels = [int(tag[1]) for tag, _ in read(full()).tags if tag in ("h1", "h2", "h3", "h4")]
    assert levels[0] == 1
    assert all(after <= before + 1 for before, after in pairwise(levels))
    assert levels.count(2) == 5


def test_a_section_without_content_has_no_heading():
    assert [tag for tag, _ in read(Report("only a title")).tags if tag.startswith("h")] == ["html", "head", "h1"]


def test_pictures_have_their_natural_size():
    assert {name: read(full()).all("img")[0][name] for name in ("width", "height")} == {"width": "960", "height": "240"}


def test_settings_are_flat_with_dotted_names():
    settings = {
        "a": {"b": {"c": 1}, "d": None},
        "e": [1, True, {"f": 2}],
        "g": {},
        "h": False,
        "i": (),
    }
    assert list(flatten(settings)) == [
        ("a.b.c", "1"), ("a.d", "none"), ("e", "1, yes, f: 2"), ("g", "none"), ("h", "no"), ("i", "none"),
    ]  # fmt: skip


def test_long_tables_and_cells_are_cut_and_say_so():
    table = Table("long", ("number", "text"), [(i, "x" * 3000 if i == 0 else "") for i in range(1600)])
    reader = read(Report("title", tables=[table]))
    assert len(reader.all("tr")) == 1 + 500
    assert "1,100 more rows are not shown." in reader.text
    assert "x" * 2000 + "…" in reader.text


def test_the_same_contents_give_the_same_page():
    assert page(full(), {"curves": PNG}) == page(full(), {"curves": PNG})
