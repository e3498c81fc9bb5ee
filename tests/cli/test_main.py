"""The command line: results on stdout, one clear paragraph for every mistake, and exit codes."""

import json
import os
import re
import signal
import subprocess
import sys
import time

import pytest
from PIL import Image

from twofold.cli.main import main


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run folder made by the command line itself."""
    place = tmp_path_factory.mktemp("cli") / "run"
    assert main(["train", "digits", "--epochs", "4", "--config", "stages=16 M 32 M", "--out", str(place)]) == 0
    return place


@pytest.fixture(scope="module")
def writer(tmp_path_factory):
    place = tmp_path_factory.mktemp("cli")
    (place / "text.txt").write_text("one two three four five six seven.\n" * 200)
    words = ["--epochs", "2", "--batch-size", "4", "--config", "units=16", "embedding=8", "--out", str(place / "run")]
    assert main(["train", str(place / "text.txt"), *words]) == 0
    return place / "run"


def said(capsys, *words, code=0):
    """stdout of a command line that ends with `code`."""
    assert main([str(word) for word in words]) == code
    return capsys.readouterr().out


def complaint(capsys, *words):
    """The one paragraph of a mistake."""
    assert main([str(word) for word in words]) == 2
    captured = capsys.readouterr()
    assert captured.out == "" and captured.err.startswith("twofold: ") and captured.err.count("\n") == 1
    assert "Traceback" not in captured.err
    return captured.err


def test_train_ends_with_the_scores_and_where_to_look(capsys, tmp_path):
    out = said(capsys, "train", "digits", "--epochs", 2, "--config", "stages=8 M", "--out", tmp_path / "run")
    assert re.search(r"test:        accuracy [\d.]+ % \(majority class [\d.]+ %\)\n", out)
    assert f"report:      {tmp_path / 'run' / 'report.html'}" in out


def test_train_json_is_one_document(capsys, tmp_path):
    out = json.loads(said(capsys, "train", "digits", "--epochs", 1, "--config", "stages=8 M", "--out", tmp_path / "r", "--json"))
    assert 0 <= out["test"]["accuracy"] <= 1 and out["run"] == str(tmp_path / "r")


def test_evaluate_prints_the_scores_of_the_run(capsys, run):
    found = json.loads(said(capsys, "evaluate", run, "--json"))
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert found["accuracy"] == rows[-1]["test"]["accuracy"]
    assert sum(map(sum, found["confusion"])) == 599
    table = said(capsys, "evaluate", run)
    assert table.startswith(f"accuracy {100 * found['accuracy']:.2f} %") and "precision" in table
    assert json.loads(said(capsys, "evaluate", run, "--split", "validation", "--json"))["accuracy"] == rows[-1]["validation"]["accuracy"]


def test_find_rate_suggests_and_draws_and_keeps_no_run(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    out = said(capsys, "train", "digits", "--find-rate", "--config", "stages=8 M", "--optimizer", "nesterov")
    assert out.startswith("Suggested learning rate: ") and out.endswith("plot:        digits-rates.png\n")
    found = json.loads(said(capsys, "train", "digits", "--find-rate", "--config", "stages=8 M", "--out", "x.png", "--json"))
    assert found["rates"][0] < found["suggested"] < found["rates"][-1] and len(found["losses"]) == len(found["rates"])
    assert {path.name for path in tmp_path.iterdir()} == {"digits-rates.png", "x.png"}
    with Image.open("x.png") as drawn:
        assert drawn.width > 1000


def test_runs_lists_what_was_trained(capsys, run, writer):
    out = said(capsys, "runs", run.parent)
    assert out.split()[:5] == ["run", "source", "model", "epochs", "best"] and " digits  vgg-mini  4/4 " in out and " done" in out
    found = json.loads(said(capsys, "runs", run, "--json"))["runs"]
    assert [(each["source"], each["model"], each["state"], each["epochs"]) for each in found] == [("digits", "vgg-mini", "done", 4)]


@pytest.fixture
def seven(tmp_path):
    """A seven of 8x8, bright on dark, as the digits are."""
    picture = Image.new("L", (8, 8))
    for x, y in [(2, 0), (3, 0), (4, 0), (5, 0), (5, 1), (5, 2), (4, 3), (4, 4), (3, 5), (3, 6), (3, 7), (4, 1), (4, 2)]:
        picture.putpixel((x, y), 255)
    picture.save(tmp_path / "seven.png")
    return tmp_path / "seven.png"


def test_predict_in_three_formats(capsys, run, seven):
    found = json.loads(said(capsys, "predict", run, seven, seven, "--json"))
    assert [f["class"] for f in found] == ["7", "7"] and len(found[0]["ranking"]) == 3
    assert said(capsys, "predict", run, seven, "--format", "csv").splitlines()[1].startswith(f"{seven},7,0.")
    assert "seven.png" in said(capsys, "predict", run, seven)


def test_sample_writes_the_prompt_and_goes_on(capsys, writer):
    text = said(capsys, "sample", writer, "--prompt", "one ", "--length", 20, "--seed", 1)
    assert text.startswith("one ") and len(text) == 4 + 20 + 1
    assert said(capsys, "sample", writer, "--prompt", "one ", "--length", 20, "--seed", 1) == text
    assert json.loads(said(capsys, "sample", writer, "--length", 5, "--json"))["text"]


def test_lists_name_everything(capsys):
    assert json.loads(said(capsys, "models", "--json"))[0]["name"] == "lenet5"
    names = {s["name"] for s in json.loads(said(capsys, "data", "--json"))}
    assert names == {"digits", "python-source", "mnist", "fashion-mnist", "cifar10", "cifar100", "tiny-shakespeare", "wikitext-2"}
    assert "61,706" in said(capsys, "models") and "python-source" in said(capsys, "data")


def test_data_check_says_what_lies_there(capsys, tmp_path):
    for name, level in (("dark", 20), ("light", 200)):
        (tmp_path / name).mkdir()
        for number in range(6):
            Image.new("L", (10 + number, 9), level + number).save(tmp_path / name / f"{number}.png")
    (tmp_path / "dark" / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\nrest")
    found = said(capsys, "data", "check", tmp_path)
    assert "classify" in found and "dark" in found and "broken.png" in found
    assert json.loads(said(capsys, "data", "check", tmp_path, "--json"))["task"] == "classify"


def test_summary_counts_the_weights(capsys, run):
    found = json.loads(said(capsys, "summary", "lenet5", "--input", "3x32x32", "--json"))
    assert found["layers"][0]["shape"] == [1, 6, 32, 32] and found["layers"][0]["weights"] == 6 * (75 + 1)
    assert found["weights"] == sum(layer["weights"] for layer in found["layers"])
    assert "weights: 61,706" in said(capsys, "summary", "lenet5")
    assert json.loads(said(capsys, "summary", "char-lstm", "--json"))["weights"] == 128 * 96 + 4 * 192 * (96 + 192 + 2) + 192 * 96 + 128
    assert said(capsys, "summary", run).startswith(str(run))
    signal = json.loads(said(capsys, "summary", "signal-cnn", "--input", "2x1024", "--json"))
    assert signal["input"] == [1, 2, 1024] and signal["multiply_adds"] == 1024 * (8 * 2 * 128 + 5 * 128 * 256 + 3 * 256 * 128) + 128 * 2


def test_doctor_names_what_runs(capsys):
    found = json.loads(said(capsys, "doctor", "--json"))
    assert {"twofold", "torch", "processor", "native kernels"} <= set(found)


BAD = {
    "command": (["trian"], 'Unknown command "trian". Did you mean "train"?'),
    "option": (["train", "digits", "--epoch", "3"], "Unknown option: --epoch. Did you mean --epochs?"),
    "value": (["train", "digits", "--epochs", "x"], "settings: epochs: expected a whole number, got 'x'."),
    "range": (["train", "digits", "--epochs", "0"], "settings: epochs: expected 1 or more, got "),
    "zero limit": (["train", "python-source", "--limit", "0"], "limit: expected a whole number of characters, 1,000 or more, got 0."),
    "zero size": (["train", "digits", "--image-size", "0"], "image_size: expected a whole number of pixels from 1 to 4096, got 0."),
    "no source": (["train"], "name a source, for example: twofold train digits"),
    "source": (["train", "digit"], 'did you mean "digits"?'),
    "model": (["train", "digits", "--model", "lenet"], 'did you mean "lenet5"?'),
    "config": (["train", "digits", "--config", "stages"], "config: expected name=value, got 'stages'"),
    "resume and more": (["train", "digits", "--resume", "x"], "give no source and no other settings"),
    "resume and trials": (["train", "--resume", "x", "--trials", "3"], "give no source and no other settings"),
    "resume and a rate": (["train", "--resume", "x", "--find-rate"], "give no source and no other settings"),
    "resume nothing": (["train", "--resume", "no-such-run"], "no run folder no-such-run"),
    "force": (["train", "digits", "--force"], "train: --force belongs to --resume"),
    "rate and sweep": (["train", "digits", "--find-rate", "--sweep", "lr=1e-3..1"], "each do something else. Take one."),
    "rate and overwrite": (["train", "digits", "--find-rate", "--overwrite"], "--find-rate keeps no run: leave --overwrite out"),
    "rate and processes": (["train", "digits", "--find-rate", "--processes", "2"], "--find-rate works in one process"),
    "rate and name": (
        ["train", "digits", "--find-rate", "--out", "x.jpg"],
        "expected --out as the name of a PNG file, for example rates.png",
    ),
    "sweep and overwrite": (["train", "digits", "--sweep", "lr=1e-3..1", "--overwrite"], "--sweep goes on with the study"),
    "sweep and shards": (["train", "digits", "--sweep", "lr=1e-3..1", "--shard-weights"], "--sweep works in one process. Leave --shard-w"),
    "sweep and processes": (["train", "digits", "--sweep", "lr=1e-3..1", "--processes", "2"], "--sweep works in one process"),
    "trials alone": (["train", "digits", "--trials", "3"], "train: --trials belongs to --sweep"),
    "parts": (["train", "digits", "--accumulate", "5"], "batch_size=32 cannot be taken in accumulate=5 equal parts"),
    "patience": (["train", "digits", "--schedule", "plateau", "--patience", "2"], "rate_patience=3 never comes to an end"),
    "momentum": (["train", "digits", "--optimizer", "sgd", "--momentum", "0.5"], "momentum=0.5 is read by nothing: sgd has none"),
    "warm-up": (["train", "digits", "--warmup", "20", "--epochs", "3"], "expected warmup within the training of 3 epochs, got 20 epochs"),
    "synchronised": (["train", "digits", "--sync-batchnorm"], "sync_batchnorm is for several processes, and this one is alone"),
    "half": (["train", "digits", "--device", "cpu", "--precision", "fp16"], "precision=fp16 is for CUDA"),
    "augment": (["data", "preview", "digits", "--augment", "strng"], "no transform 'strng'. Did you mean \"strong\"?"),
    "preview": (["data", "preview", "python-source"], "expected a source of pictures, but python-source is text"),
    "runs": (["runs", "."], "there is no run in ."),
    "run": (["evaluate", "no-such-run"], "no run folder no-such-run"),
    "no picture": (["predict", "no-such-run"], "name at least one picture"),
    "summary": (["summary", "lenet5", "--input", "28x28"], "expected --input as CxHxW, for example 3x64x64, got '28x28'"),
    "signal": (
        ["summary", "signal-cnn", "--input", "3x32x32"],
        "expected --input as CxT, channels and steps of a signal, for example 1x1024, got '3x32x32'",
    ),
    "units": (["summary", "char-lstm", "--config", "units=1000000"], "GiB of memory for the weights alone"),
    "layers": (["train", "python-source", "--config", "layers=100000"], "expected layers to be at most 1,000, got 100,000"),
    "input": (["summary", "lenet5", "--input", "3x99999x99999"], "expected --input of at most 67,108,864 values, got 3x99999x99999"),
    "steps": (["summary", "char-lstm", "--input", "999999999999"], "1 to 100,000, for example 64, got '999999999999'"),
    "control": (["train", "a\x1b[2Jb\nc"], 'no source "a\\x1b[2Jb\\nc"'),
    "foreign": (["train", "digits", "--window", "9"], "settings: window=9 is for text only"),
    "data": (["data", "chek", "x"], "expected nothing, `check PATH`, `get NAME` or `preview PATH`, got 'chek x'"),
}


@pytest.mark.parametrize("name", BAD)
def test_mistakes_are_answered_in_one_paragraph(name, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words, message = BAD[name]
    assert message in complaint(capsys, *words)
    assert list(tmp_path.iterdir()) == []


def test_mistakes_with_a_run(capsys, run, writer, seven, tmp_path):
    assert "already holds a run" in complaint(capsys, "train", "digits", "--out", run)
    assert "no.png" in complaint(capsys, "predict", run, tmp_path / "no.png")
    assert "the model has never seen: 'ö' at position 0" in complaint(capsys, "sample", writer, "--prompt", "ö")
    assert "expected a temperature of 0" in complaint(capsys, "sample", writer, "--temperature", "-1")
    assert "only language models write" in complaint(capsys, "sample", run)
    assert "does not look at pictures" in complaint(capsys, "predict", writer, seven)
    Image.new("L", (28, 28)).save(tmp_path / "large.png")
    assert "every picture that the model has seen was 8x8" in complaint(capsys, "predict", run, tmp_path / "large.png")


def test_a_run_finds_its_source_from_every_folder(capsys, writer, tmp_path, monkeypatch):
    monkeypatch.chdir(writer.parent)
    words = ["--epochs", "1", "--batch-size", "4", "--config", "units=8", "embedding=4"]
    assert main(["train", "text.txt", *words]) == 0
    monkeypatch.chdir(tmp_path)
    assert "bits per character" in said(capsys, "evaluate", writer.parent / "runs" / "text")


def test_debug_shows_where_it_came_from(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match="no source"):
        main(["--debug", "train", "nothing"])


def child(*words, **environment):
    """The command line in a process of its own, with its pipes."""
    words = [sys.executable, "-m", "twofold", *map(str, words)]
    pipe = subprocess.PIPE
    return subprocess.Popen(words, stdout=pipe, stderr=pipe, env={**os.environ, **environment})


def test_a_reader_that_has_gone_is_left_quietly():
    processes = [child(*words) for words in (["models"], ["models", "--json"], ["data"])]
    for process in processes:
        process.stdout.close()
    told = [(process.communicate(timeout=60)[1], process.returncode) for process in processes]
    assert told == [(b"", 141)] * 3


def test_a_terminal_without_the_letters_gets_them_written_out(tmp_path):
    (tmp_path / "é").mkdir()
    (tmp_path / "é" / "ü.txt").write_text("naïve " * 200)
    both = [child("data", "check", tmp_path / "é", *more, PYTHONIOENCODING="ascii", PYTHONUTF8="1") for more in ([], ["--json"])]
    (out, err), (document, _) = (process.communicate(timeout=60) for process in both)
    assert err == b"" and out.decode("ascii").startswith("\\xe9: folder of text files")
    assert json.loads(document)["source"] == "é"


@pytest.mark.parametrize("error", [MemoryError(), RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried ...")])
def test_memory_that_runs_out_is_told(capsys, monkeypatch, error):
    def run_out(*_):
        raise error

    monkeypatch.setattr("twofold.preparing.open_source", run_out)
    assert "there is not enough memory for this. Take smaller sizes" in complaint(capsys, "train", "digits", "--out", "never")


def test_evaluating_other_pictures_tells_on_the_side_what_was_converted(capsys, run, tmp_path):
    (tmp_path / "7").mkdir()
    Image.new("RGB", (8, 8)).save(tmp_path / "7" / "a.png")
    assert main(["evaluate", str(run), str(tmp_path)]) == 0
    captured = capsys.readouterr()
    assert captured.err == "1 of 1 picture is in colour and read as grey, as the model needs\n" and captured.out.startswith("accuracy")
    assert json.loads(said(capsys, "evaluate", run, tmp_path, "--json"))["notes"] == [captured.err.strip()]
    assert "is used whole, so the train split does not apply" in complaint(capsys, "evaluate", run, tmp_path, "--split", "train")


def test_ctrl_c_leaves_a_valid_run_and_says_how_to_go_on(tmp_path):
    """A real process and a real signal; the run goes on afterwards and ends like any other."""
    out = tmp_path / "run"
    words = ["train", "digits", "--epochs", "25", "--config", "stages=8 M", "--out", str(out)]
    process = subprocess.Popen([sys.executable, "-m", "twofold", *words], stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 120
    while not list((out / "state").glob("*.safetensors")) and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 130, err
    assert (
        re.search(r"Stopped in epoch \d+ after \d+ of \d+ steps", err) and f"twofold train --resume {out}" in err and "Traceback" not in err
    )
    assert main(["train", "--resume", str(out)]) == 0
    rows = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert [row.get("epoch") for row in rows] == [*range(1, 26), None]
