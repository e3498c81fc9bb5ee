"""twofold data preview: a picture of what augmentation does to a source, the same for the same seed."""

import json

import pytest

from twofold.cli.preview import preview


def test_a_picture_is_written_and_seed_decides_it(tmp_path, capsys):
    drawn = {}
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        preview("digits", "shift=0.2 cutout=2", str(tmp_path / f"{name}.png"), seed, json=True)
        drawn[name] = (tmp_path / f"{name}.png").read_bytes()
    assert drawn["a"].startswith(b"\x89PNG") and drawn["a"] == drawn["b"] != drawn["c"]
    told = json.loads("{" + capsys.readouterr().out.split("{")[1])
    assert (told["augment"], told["pictures"], told["versions"], told["out"]) == ("shift=0.2 cutout=2", 10, 6, str(tmp_path / "a.png"))


@pytest.mark.parametrize(
    ("source", "words", "out", "message"),
    [
        ("digits", "flop", "a.png", 'augment, word 1 ."flop".: no transform'),
        ("digits", "flip", "a.jpg", "data preview: expected --out as the name of a PNG file, for example a.png, got a.jpg"),
        ("digits", "crop=8", "a.png", "augment crop=8: expected moves of fewer pixels than the height 8"),
        ("python-source", "flip", "a.png", "data preview: expected a source of pictures, but python-source is text"),
    ],
)
def test_what_cannot_be_previewed_is_refused(source, words, out, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=message):
        preview(source, words, out)
    assert not list(tmp_path.iterdir())
