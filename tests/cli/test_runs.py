"""twofold runs: the table, the order, the differences, and the mistakes."""

import json

import pytest
import yaml

from twofold.cli.runs import _short, _time, runs


def write(folder, name, scores, metric="accuracy", test=None, **learning):
    path = folder / name
    path.mkdir(parents=True)
    (path / "settings.yaml").write_text(
        yaml.safe_dump({"source": "/a/photos", "model": "lenet5", "config": {"units": 8}, "learning": {"epochs": 3, **learning}})
    )
    rows = [{"epoch": e, "seconds": 30.0 * e, "validation": {"loss": 1 / e, metric: score}} for e, score in enumerate(scores, 1)]
    (path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture
def folder(tmp_path):
    write(tmp_path, "a", [0.5, 0.75, 0.7], seed=1)
    write(tmp_path, "b", [0.9, 0.8], seed=2)
    write(tmp_path, "c", [])
    return tmp_path


def lines(capsys):
    return [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]


def test_the_table_says_how_far_each_run_came_and_how_well(folder, capsys):
    runs(folder)
    out = lines(capsys)
    assert out[0] == "run source model epochs best accuracy test time weights state"
    assert out[1] == "a photos lenet5 3/3 75.00 % - 1:30 - stopped"
    assert out[2] == "b photos lenet5 2/3 90.00 % - 1:00 - stopped" and out[3] == "c photos lenet5 0/3 - - - - stopped"
    assert out[4:] == ["", "run differs in", "a seed=1", "b seed=2"]


def test_runs_of_several_metrics_say_which(folder, capsys):
    write(folder, "words", [1.5, 1.25], "bits_per_character")
    runs(folder)
    out = lines(capsys)
    assert "best score" in out[0] and "accuracy 75.00 %" in out[1] and "bits per character 1.25" in out[4]


@pytest.mark.parametrize(
    ("sort", "order"),
    [("", "abc"), ("accuracy", "bac"), ("loss", "abc"), ("epochs", "abc"), ("seconds", "cba"), ("name", "abc"), ("model", "abc")],
)
def test_the_order(folder, capsys, sort, order):
    runs(folder, sort=sort, json=True)
    assert [run["name"] for run in json.loads(capsys.readouterr().out)["runs"]] == list(order)


def test_json_has_everything(folder, capsys):
    runs(folder, json=True, sort="loss")
    told = json.loads(capsys.readouterr().out)
    first = told["runs"][0]
    assert first["best"] == {"metric": "loss", "value": pytest.approx(1 / 3), "epoch": 3} and first["differs"] == {"seed": 1}
    assert first["settings"] == {"source": "/a/photos", "model": "lenet5", "config.units": 8, "epochs": 3, "seed": 1}
    assert (first["epochs"], first["planned"], first["seconds"], first["state"]) == (3, 3, 90.0, "stopped")


def test_damaged_runs_are_listed_with_the_reason(folder, capsys):
    (folder / "b" / "metrics.jsonl").write_text("{")
    runs(folder)
    out = lines(capsys)
    assert out[2] == "b photos lenet5 0/3 - - - - damaged" and out[-1].startswith("b: metrics.jsonl is damaged: Expecting")


def test_the_plot_is_written(folder, capsys):
    runs(folder, plot=folder / "runs.png")
    assert (folder / "runs.png").read_bytes().startswith(b"\x89PNG") and lines(capsys)[-1] == f"plot: {folder / 'runs.png'}"


def test_one_run_by_its_own_folder(folder, capsys):
    runs(folder / "a")
    assert [line.split()[0] for line in lines(capsys)] == ["run", "a"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"sort": "acuracy"},
            "no run has 'acuracy' to sort by. There are accuracy, loss, name, source, model, epochs, seconds, weights, state",
        ),
        ({"plot": "runs.jpg"}, "expected --plot as the name of a PNG file, for example runs.png, got runs.jpg"),
    ],
)
def test_mistakes(folder, options, message):
    if "plot" in options:
        options = {"plot": folder.__class__(options["plot"])}
    with pytest.raises(ValueError, match=message):
        runs(folder, **options)


def test_a_folder_without_runs(tmp_path):
    with pytest.raises(ValueError, match=r"^runs: there is no run in .*\. Make one: twofold train digits$"):
        runs(tmp_path)


def test_times_and_counts_are_short():
    assert [_time(s) for s in (2.94, 59.94, 60, 245, 11527)] == ["2.9 s", "59.9 s", "1:00", "4:05", "3:12:07"]
    assert [_short(n) for n in (812, 67754, 999_949, 999_950, 11_689_512)] == ["812", "67.8 k", "999.9 k", "1.0 M", "11.7 M"]
