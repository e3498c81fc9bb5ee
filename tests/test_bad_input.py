"""Bad input never kills the process, never passes in silence, and takes no memory before it is refused: every case in a child process."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from runpy import run_path

import pytest

if sys.platform != "linux":
    pytest.skip("the memory of a child is limited and measured as Linux does it", allow_module_level=True)

PROGRAM = Path(__file__).parent / "bad_inputs.py"
CASES = run_path(str(PROGRAM))["CASES"]
ROOM = 32 << 20  # bytes: more than any layer here weighs, less than any of the results that must not be begun


def ask(names, program=PROGRAM):
    """name -> what came of it. A case that kills its child, or its child's time, is named, and the others begin anew behind it."""
    answers, left = {}, list(names)
    while left:
        place = {**os.environ, "OMP_NUM_THREADS": "1"}
        child = [sys.executable, str(program)]
        try:
            done = subprocess.run(child, input="\n".join(left), capture_output=True, text=True, timeout=120, env=place, check=False)
            lines, fate = done.stdout.splitlines(), f"died: {signal.Signals(-done.returncode).name}" if done.returncode < 0 else "left"
            assert lines, done.stderr
        except subprocess.TimeoutExpired as late:
            lines, fate = (late.stdout or b"").decode().splitlines(), "hangs"
        for line in map(json.loads, lines):
            begun = line.get("begins", line.get("name"))
            answers[begun] = {"kind": fate, "message": "", "grown": 0} if "begins" in line else line
        left = [name for name in left if name not in answers]
    return answers


@pytest.fixture(scope="module")
def answers():
    return ask(CASES)


@pytest.mark.parametrize("name", CASES)
def test_bad_input_is_answered_by_a_sentence(name, answers):
    words, came = CASES[name][1], answers[name]
    assert came["kind"] == "ValueError", came
    assert came["message"].startswith(words[0]) and "\n" not in came["message"], came
    assert not [word for word in words if word not in came["message"]], came
    assert came["grown"] < ROOM, came


def test_there_are_many_cases_for_every_layer():
    assert len(CASES) >= 600


WRONG = """
import os, signal, sys
from runpy import run_path
import torch
program = run_path({program!r}, run_name="bad_inputs")
cases = {{
    "silent": lambda: 1,
    "killed": lambda: os.kill(os.getpid(), signal.SIGSEGV),
    "raises another": lambda: torch.zeros(2) + torch.zeros(3),
    "allocates": lambda: (torch.ones(1 << 27), int("x")),
    "beyond the limit": lambda: torch.ones(1 << 31),
    "leaves": lambda: os._exit(0),
    "right": lambda: int("x"),
}}
program["CASES"].update({{name: (call, ()) for name, call in cases.items()}})
program["serve"]()
"""


def test_the_judge_sees_deaths_silence_and_allocation(tmp_path):
    program = tmp_path / "wrong.py"
    program.write_text(WRONG.format(program=str(PROGRAM)))
    wanted = {
        "silent": "accepted",
        "killed": "died: SIGSEGV",
        "raises another": "RuntimeError",
        "allocates": "ValueError",
        "beyond the limit": "RuntimeError",
        "leaves": "left",
        "right": "ValueError",
    }
    came = ask(wanted, program)
    assert {name: answer["kind"] for name, answer in came.items()} == wanted
    assert came["allocates"]["grown"] > ROOM > came["right"]["grown"]
