"""README and docs are executed: every Python block, every command. What takes long runs in a shortened form made from the text itself.

Each page runs top to bottom in one empty folder that holds a few files to point at: photos/ with two classes, seven.png (8x8), notes.txt.
"""

import re
import shlex
import subprocess
from pathlib import Path

import pytest
from PIL import Image

from twofold.cli.main import COMMANDS, main

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```", re.MULTILINE | re.DOTALL)

# How a long command is shortened: the same words with these behind them. Settings that the page names itself stay.
SHORTER = {
    "digits": {"--epochs": "2"},
    "python-source": {"--epochs": "1", "--limit": "20000", "--items-per-epoch": "4000", "--config": "units=16"},
    "": {"--epochs": "1", "--batch-size": "4"},
}


def blocks(page):
    return [(match[1], match[2]) for match in BLOCK.finditer(page.read_text(encoding="utf-8"))]


@pytest.fixture
def place(tmp_path, monkeypatch):
    """Somewhere to be a newcomer."""
    for name, colour in (("cats", (200, 120, 40)), ("dogs", (40, 90, 200))):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for number in range(12):
            shade = tuple(channel + number for channel in colour)
            Image.new("RGB", (40 + number, 36), shade).save(tmp_path / "photos" / name / f"{number}.png")
    picture = Image.new("L", (8, 8))
    for x, y in [(2, 0), (3, 0), (4, 0), (5, 0), (5, 1), (5, 2), (4, 3), (4, 4), (3, 5), (3, 6), (3, 7), (4, 1), (4, 2)]:
        picture.putpixel((x, y), 255)
    picture.save(tmp_path / "seven.png")
    (tmp_path / "notes.txt").write_text("Each line of these notes is like the one before it.\n" * 100)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def shortened(words):
    """The words of `twofold train SOURCE ...` so that they take a second, and replace the run of an earlier block."""
    if words[0] != "train" or "--resume" in words or "--help" in words:
        return words
    extra = SHORTER.get(words[1], SHORTER[""])
    replaced = list(words)
    for option, value in extra.items():
        if option == "--epochs" and option in replaced:
            replaced[replaced.index(option) + 1] = value
        elif option not in replaced:
            replaced += [option, value]
    return replaced + ([] if "--overwrite" in replaced else ["--overwrite"])


def run_command(line):
    words = shlex.split(line, comments=True)
    if not words:
        return
    if words[0] == "make":
        for target in [word for word in words[1:] if "=" not in word]:
            done = subprocess.run(["make", "--dry-run", "-C", ROOT, target], capture_output=True, text=True)
            assert done.returncode == 0, done.stderr
        return
    if words[0] == "twofold":
        try:
            code = main(shortened(words[1:]))
        except SystemExit as leave:  # --help and --version
            code = leave.code
        assert code in (0, None), f"{line} ended with {code}"
        return
    assert words[0] in ("git", "cd", "pip", ".venv/bin/pre-commit"), f"nothing executes this line: {line}"


def run_python(code, names, page):
    # `twofold.fit(...)` of a page trains as shortly as its commands do.
    code = re.sub(r'(twofold\.fit\((?:"digits"|[^)]*?))\)', r"\1, overwrite=True)", code) if "overwrite" not in code else code
    code = re.sub(r"epochs=\d+", "epochs=2", code)
    exec(compile(code, str(page), "exec"), names)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_what_is_written_works(page, place, capsys):
    names = {}
    for kind, content in blocks(page):
        if kind == "python":
            run_python(content, names, page)
        elif kind == "sh":
            for line in content.replace("\\\n", " ").splitlines():
                run_command(line)
        else:
            assert kind in ("text", "json", "yaml", "cpp"), f"{page.name}: a block of kind {kind!r} is executed by nobody"


def test_every_page_says_what_kind_its_blocks_are():
    for page in PAGES:
        fences = re.findall(r"^```(\w*)", page.read_text(encoding="utf-8"), re.MULTILINE)
        assert all(fences[0::2]) and not any(fences[1::2]), f"{page.name} has a block without a kind"


def test_links_lead_somewhere():
    for page in PAGES:
        for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8")):
            assert target.startswith("https://") or (page.parent / target).exists(), f"{page.name}: {target} is not there"


def test_readme_shows_the_two_commands_and_every_command():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert "make demo" in text and "make test" in text
    assert [name for name in COMMANDS if f"twofold {name}" not in text] == []


def test_the_version_is_written_once():
    import twofold

    assert f'version = "{twofold.__version__}"' in (ROOT / "pyproject.toml").read_text()
    assert f"## {twofold.__version__}" in (ROOT / "CHANGELOG.md").read_text()
