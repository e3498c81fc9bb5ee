"""From a source to a run and back: small real trainings, what lies in the folder, resume, determinism, and bad input."""

import json
import math
import re
import subprocess
import sys

import pytest
import torch
from PIL import Image

import twofold
from twofold import nn
from twofold.data import pictures as door
from twofold.models.catalogue import build
from twofold.tasks.sampling import Sampling
from twofold.train.signals import StoppedError
from twofold.train.watch import Watch

UNTIMED = {"seconds": 0, "time": {}}
TINY = {"epochs": 2, "quiet": True, "config": {"stages": "8 M 8 M"}}


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    """A classifier trained for a few epochs on real digits."""
    return twofold.fit("digits", out=tmp_path_factory.mktemp("digits") / "run", epochs=6, quiet=True, config={"stages": "16 16 M 32 M"})


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """A run of the tiny settings that nothing has disturbed."""
    return twofold.fit("digits", out=tmp_path_factory.mktemp("tiny") / "run", **TINY)


@pytest.fixture(scope="module")
def prose(tmp_path_factory):
    """A text of two sentences, over and over, and a model trained on it."""
    place = tmp_path_factory.mktemp("prose")
    (place / "text.txt").write_text("The cat sat on the mat. The dog ate the log.\n" * 200)
    settings = {"epochs": 8, "batch_size": 4, "window": 32, "config": {"units": 48, "embedding": 24}, "quiet": True}
    return twofold.fit(place / "text.txt", out=place / "run", **settings)


def test_a_classifier_learns_and_says_so(digits):
    assert digits.metrics["test"]["accuracy"] > 0.95
    assert digits.metrics["validation"]["accuracy"] > 0.95
    assert digits.evaluate().scores == digits.metrics["test"]


def test_a_language_model_learns_and_writes(prose):
    assert prose.metrics["test"]["bits_per_character"] < 0.5
    assert "The cat sat on the mat." in prose.sample("The dog", 120, Sampling(temperature=0.3))
    assert prose.sample("The ", 30) == prose.sample("The ", 30) != prose.sample("The ", 30, Sampling(temperature=3.0, seed=5))


def test_the_folder_holds_what_the_design_names(digits, prose):
    of_pictures = {"confusion", "curves", "filters", "mistakes", "predictions", "reliability"}
    for run, pictures in ((digits, of_pictures), (prose, {"curves", "gates"})):
        inside = {p.name for p in run.path.iterdir()}
        assert inside == {
            "settings.yaml", "metrics.jsonl", "report.html", "pictures", "tensorboard", "model.safetensors", "model.json", "state",
        }  # fmt: skip
        assert {p.stem for p in (run.path / "pictures").iterdir()} == pictures
        assert list((run.path / "tensorboard").glob("events.out.tfevents.*"))
        assert run.report.stat().st_size < 2_000_000


def test_the_log_has_a_line_for_each_epoch_and_the_final_scores(digits):
    rows = [json.loads(line) for line in (digits.path / "metrics.jsonl").read_text().splitlines()]
    assert [row.get("epoch") for row in rows] == [1, 2, 3, 4, 5, 6, None]
    best = max(rows[:-1], key=lambda row: (row["validation"]["accuracy"], row["epoch"]))
    assert rows[-1]["best_epoch"] == best["epoch"]
    assert rows[-1]["validation"]["accuracy"] == pytest.approx(best["validation"]["accuracy"])
    assert rows[-1]["routes"] and sum(rows[-1]["routes"].values()) >= 8


def test_the_report_speaks_of_this_run(digits, prose):
    page = digits.report.read_text()
    assert f"{100 * digits.metrics['test']['accuracy']:.2f} %" in page
    assert page.count("data:image/png;base64,") == 6 and "<script" not in page
    written = prose.report.read_text()
    assert all(f"temperature {t}" in written for t in (0.5, 0.8, 1.1)) and "bits per character" in written


def test_the_events_hold_the_curves(digits):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(digits.path / "tensorboard")).Reload()
    rows = digits.folder.read_rows()[:-1]
    logged = [event.value for event in events.Scalars("accuracy/validation")]
    assert logged == pytest.approx([row["validation"]["accuracy"] for row in rows], rel=1e-6)


def test_a_loaded_run_is_the_run(digits, prose):
    loaded = twofold.load(digits.path)
    assert loaded.metrics == digits.metrics and loaded.settings == digits.settings
    x = torch.randint(0, 256, (5, 1, 8, 8), dtype=torch.uint8)
    assert loaded.predict(list(x)) == digits.predict(list(x))
    assert twofold.load(prose.path).sample("The ", 50) == prose.sample("The ", 50)


def test_settings_yaml_repeats_the_run(digits, tmp_path):
    settings = digits.folder.read_settings()
    flat = {**settings.learning.model_dump(), **settings.optimisation.model_dump(), "model": settings.model, "config": settings.config}
    again = twofold.fit(settings.source, out=tmp_path / "again", quiet=True, **flat)
    assert all(torch.equal(a, b) for a, b in zip(again.model.parameters(), digits.model.parameters(), strict=True))


def test_two_processes_end_with_the_same_bits(tmp_path):
    program = "import sys, twofold; twofold.fit('digits', out=sys.argv[1], epochs=1, quiet=True, config={'stages': '8 M 8 M'})"
    both = [subprocess.Popen([sys.executable, "-c", program, tmp_path / name]) for name in ("one", "two")]
    assert [process.wait(240) for process in both] == [0, 0]
    assert len({(tmp_path / name / "model.safetensors").read_bytes() for name in ("one", "two")}) == 1


def test_the_seed_decides_everything_and_the_users_generator_is_left_alone(tmp_path, tiny):
    torch.manual_seed(5)
    before = torch.get_rng_state()
    runs = [tiny, *(twofold.fit("digits", out=tmp_path / str(seed), seed=seed, **TINY) for seed in (0, 1))]
    assert torch.equal(before, torch.get_rng_state())
    weights = [torch.cat([p.flatten() for p in run.model.parameters()]) for run in runs]
    assert torch.equal(weights[0], weights[1]) and not torch.equal(weights[0], weights[2])
    assert {**runs[0].metrics, **UNTIMED} == {**runs[1].metrics, **UNTIMED}


@pytest.mark.parametrize("step", [5, 34, 50])
def test_an_interrupted_run_is_valid_and_resumes_bit_for_bit(tmp_path, interrupt, monkeypatch, tiny, step):
    interrupt(step)
    with pytest.raises(StoppedError, match=r"Go on with: twofold train --resume"):
        twofold.fit("digits", out=tmp_path / "cut", **TINY)
    monkeypatch.undo()
    assert twofold.load(tmp_path / "cut").predict(torch.zeros(1, 8, 8, dtype=torch.uint8))
    resumed = twofold.resume(tmp_path / "cut", quiet=True)
    assert all(torch.equal(a, b) for a, b in zip(resumed.model.parameters(), tiny.model.parameters(), strict=True))
    assert {**resumed.metrics, **UNTIMED} == {**tiny.metrics, **UNTIMED}


def test_ctrl_c_in_the_last_validation_does_not_cost_the_report(tmp_path, monkeypatch):
    end = Watch.epoch

    def interrupted(self, learner, row, better):
        end(self, learner, row, better)
        if learner.progress.epoch == 2:
            self.wish.ask(2)

    monkeypatch.setattr(Watch, "epoch", interrupted)
    run = twofold.fit("digits", out=tmp_path / "run", **TINY)
    assert run.metrics["test"] and run.report.exists()


def test_a_run_that_was_killed_before_its_report_gets_one(tmp_path, monkeypatch):
    def killed(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("twofold.fitting.tell", killed)
    with pytest.raises(KeyboardInterrupt):
        twofold.fit("digits", out=tmp_path / "run", **TINY)
    monkeypatch.undo()
    assert twofold.resume(tmp_path / "run", quiet=True).report.exists()


def test_an_interrupted_language_run_resumes_inside_its_streams(tmp_path, interrupt, monkeypatch):
    (tmp_path / "text.txt").write_text("".join(f"{i} times {i} is {i * i}.\n" for i in range(600)))
    settings = {"epochs": 3, "batch_size": 4, "window": 16, "config": {"units": 16, "embedding": 8, "dropout": 0.2}, "quiet": True}
    whole = twofold.fit(tmp_path / "text.txt", out=tmp_path / "whole", **settings)
    interrupt(200)
    with pytest.raises(StoppedError):
        twofold.fit(tmp_path / "text.txt", out=tmp_path / "cut", **settings)
    monkeypatch.undo()
    resumed = twofold.resume(tmp_path / "cut", quiet=True)
    assert all(torch.equal(a, b) for a, b in zip(resumed.model.parameters(), whole.model.parameters(), strict=True))


def test_a_run_that_is_complete_is_not_resumed(digits):
    with pytest.raises(ValueError, match="is complete: 6 epochs are done"):
        twofold.resume(digits.path)


def test_a_changed_source_is_not_resumed(tmp_path, interrupt, monkeypatch):
    (tmp_path / "text.txt").write_text("abc def ghi.\n" * 300)
    interrupt(2)
    with pytest.raises(StoppedError):
        twofold.fit(tmp_path / "text.txt", out=tmp_path / "run", epochs=2, batch_size=4, quiet=True, config={"units": 8, "embedding": 4})
    monkeypatch.undo()
    (tmp_path / "text.txt").write_text("xyz uvw rst.\n" * 300)
    with pytest.raises(ValueError, match=r"the source or the model changed.*vocabulary"):
        twofold.resume(tmp_path / "run", quiet=True)


def test_a_text_that_changed_in_its_own_characters_is_not_resumed(tmp_path, interrupt, monkeypatch):
    (tmp_path / "text.txt").write_text("abc def ghi.\n" * 300)
    interrupt(2)
    with pytest.raises(StoppedError):
        twofold.fit(tmp_path / "text.txt", out=tmp_path / "run", epochs=2, batch_size=4, quiet=True, config={"units": 8, "embedding": 4})
    monkeypatch.undo()
    (tmp_path / "text.txt").write_text("ihg fed cba.\n" + "abc def ghi.\n" * 299)
    with pytest.raises(ValueError, match=r"resume: the data of .*text.txt are not those that .*run was begun with: other content"):
        twofold.resume(tmp_path / "run", quiet=True)


def test_overwrite_replaces_the_run_only_when_the_new_one_can_begin(tmp_path):
    run = twofold.fit("digits", out=tmp_path / "run", **TINY)
    before = (run.path / "model.safetensors").read_bytes()
    for wrong in ({"model": "lenet5"}, {"config": {"stages": "M"}}, {"config": {"classes": 3}}):
        with pytest.raises(ValueError):
            twofold.fit("digits", out=run.path, overwrite=True, **{**TINY, **wrong})
        assert (run.path / "model.safetensors").read_bytes() == before
    again = twofold.fit("digits", out=run.path, overwrite=True, **{**TINY, "seed": 3})
    assert (again.path / "model.safetensors").read_bytes() != before


WILD = {"learning_rate": 100.0, "clip": 0.0, "optimizer": "nesterov", "weight_decay": 1e3}


def test_a_run_that_diverges_stops_with_the_reason(tmp_path):
    message = r"Training stopped in epoch \d+, step \d+ .*the loss is .*learning rate is too high.*batch is kept in .*No epoch was complete"
    with pytest.raises(ValueError, match=message):
        twofold.fit("digits", out=tmp_path / "run", **TINY, **WILD, non_finite="stop")
    kept = json.loads(next((tmp_path / "run" / "faults").glob("*.json")).read_text())
    assert kept["batch"] == "Pictures" and len(kept["samples"]) == kept["tensors"]["y_B"]["shape"][0]


def test_a_run_that_diverges_goes_back_until_that_is_enough(tmp_path):
    with pytest.raises(ValueError, match=r"The run went back 2 times already, as often as rollbacks allows"):
        twofold.fit("digits", out=tmp_path / "run", **TINY, **WILD, rollbacks=2)


BAD = {
    "missing": (lambda out: twofold.fit("no/such/place", out=out), r'no source "no/such/place"'),
    "misspelt": (lambda out: twofold.fit("digit", out=out), 'did you mean "digits"'),
    "model": (lambda out: twofold.fit("digits", out=out, model="lenet"), "no model 'lenet': did you mean \"lenet5\""),
    "task": (lambda out: twofold.fit("digits", out=out, model="char-lstm"), "'char-lstm' is for language, but digits is for classify"),
    "setting": (lambda out: twofold.fit("digits", out=out, epoch=3), "no setting 'epoch'. Did you mean \"epochs\""),
    "option": (lambda out: twofold.fit("digits", out=out, image_size=32), "image_size=32 does not apply to digits"),
    "data's": (lambda out: twofold.fit("digits", out=out, config={"classes": 3}), "config: classes follows from the data"),
    "foreign": (lambda out: twofold.fit("digits", out=out, window=9), "settings: window=9 is for text only, but digits is for classify"),
    "huge": (
        lambda out: twofold.fit("python-source", out=out, limit=2000, config={"units": 60_000}),
        "of memory to train it",
    ),
    "small": (lambda out: twofold.fit("digits", out=out, model="lenet5"), "expected pictures of at least 12x12, got 8x8"),
    "warm-up": (lambda out: twofold.fit("digits", out=out, epochs=3, warmup=5), "expected warmup within the training of 3 epochs, got 5"),
    "milestone": (
        lambda out: twofold.fit("digits", out=out, epochs=3, schedule="step", milestones=[2, 9]),
        "expected milestones within the training of 3 epochs, got 9 epochs",
    ),
    "processes": (lambda out: twofold.fit("digits", out=out, processes=2), "processes=2, but this process is alone. From Python, start as"),
    "sharded": (
        lambda out: twofold.fit("digits", out=out, shard_weights=True),
        "shard_weights cuts the weights over several processes, and",
    ),
    "synchronised": (lambda out: twofold.fit("digits", out=out, sync_batchnorm=True), "sync_batchnorm is for several processes, and this"),
    "half": (lambda out: twofold.fit("digits", out=out, device="cpu", precision="fp16"), "precision=fp16 is for CUDA"),
    "dropout": (
        lambda out: twofold.fit("digits", out=out, model=nn.Sequential(nn.Flatten(), nn.Linear(64, 10)), dropout=0.5),
        "dropout=0.5: expected a model with dropout layers, got one without",
    ),
    "tracker": (lambda out: twofold.fit("digits", out=out, track="trackio"), "track=trackio needs a package that is not installed"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_refused_before_anything_is_written(name, tmp_path):
    call, message = BAD[name]
    with pytest.raises(ValueError, match=re.escape(message).replace(r"no\ source", "no source")):
        call(tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_pictures_of_another_size_are_refused_unless_resizing_is_asked_for(digits, tmp_path):
    Image.new("L", (28, 20)).save(tmp_path / "seven.png")
    with pytest.raises(ValueError, match=r"seven.png is 20x28 .*every picture that the model has seen was 8x8.*--resize"):
        digits.predict(tmp_path / "seven.png")
    assert digits.predict(tmp_path / "seven.png", resize=True)[0].label in digits.reading.classes
    with pytest.raises(ValueError, match=r"expected a uint8 tensor \(1, 8, 8\), got float32 \(1, 8, 8\)"):
        digits.predict(torch.zeros(1, 8, 8))


def test_each_picture_is_decoded_once(digits, tmp_path, monkeypatch):
    Image.new("L", (8, 8)).save(tmp_path / "seven.png")
    opened = []
    decode = door._decode
    monkeypatch.setattr(door, "_decode", lambda image, side: opened.append(image.size) or decode(image, side))
    digits.predict(tmp_path / "seven.png")
    assert opened == [(8, 8)]


def test_probabilities_are_ranked_and_add_up(digits):
    said = digits.predict(torch.randint(0, 256, (1, 8, 8), dtype=torch.uint8))[0]
    shares = [share for _, share in said.ranking]
    assert shares == sorted(shares, reverse=True) and sum(shares) == pytest.approx(1)
    assert (said.label, said.probability) == said.ranking[0]


def test_each_model_refuses_the_others_work(digits, prose):
    with pytest.raises(ValueError, match="names the class of pictures; only language models write"):
        digits.sample()
    with pytest.raises(ValueError, match="continues text; it does not look at pictures"):
        prose.predict("a.png")
    with pytest.raises(ValueError, match="is made to language, but digits is for classify"):
        prose.evaluate("digits")


def test_a_language_model_is_judged_on_another_text(prose, tmp_path):
    (tmp_path / "same.txt").write_text("The cat sat on the mat. The dog ate the log.\n" * 60)
    (tmp_path / "other.txt").write_text("god eht no tas tac ehT. 0123456789 gol eht eta.\n" * 60)
    same, other = (prose.evaluate(tmp_path / name).scores["bits_per_character"] for name in ("same.txt", "other.txt"))
    assert same < 0.5 < 2 < other


def test_another_text_is_read_in_the_codes_of_the_model(prose, tmp_path):
    """T is rare in this long text, whose own vocabulary would leave it out, but the model knows it."""
    text = "the cat sat on the mat. the dog ate the log.\n" * 300 + "The cat sat.\n"
    (tmp_path / "rare.txt").write_text(text)
    assert torch.equal(prose.open_whole(tmp_path / "rare.txt").part.codes_T, prose.reading.vocabulary.encode(text))
    assert prose.evaluate(tmp_path / "rare.txt").scores["unknown"] == 0
    (tmp_path / "short.txt").write_text("The cat")
    assert prose.evaluate(tmp_path / "short.txt").details["tokens"] == 6
    (tmp_path / "strange.txt").write_text("The cät")
    assert prose.evaluate(tmp_path / "strange.txt").scores["unknown"] == pytest.approx(1 / 6)


def test_every_row_counts_the_tokens_and_characters_of_the_text_that_it_judges(tmp_path):
    """The words are long in training, short and unknown in validation and test; the row of the best epoch says what the final row says."""
    text = "wonderful elephants remember everything.\n" * 300 + "a b c d e f g.\n" * 80
    (tmp_path / "text.txt").write_text(text)
    settings = {"epochs": 2, "batch_size": 4, "window": 16, "config": {"units": 8, "embedding": 4}, "quiet": True, "unit": "word"}
    run = twofold.fit(tmp_path / "text.txt", out=tmp_path / "run", **settings)
    *rows, final = run.folder.read_rows()
    assert final["validation"] == pytest.approx(rows[final["best_epoch"] - 1]["validation"])
    validation = run.open().validation
    tokens = len(validation.codes_T) / validation.characters
    for row in rows:
        judged = row["validation"]
        assert judged["bits_per_character"] == pytest.approx(judged["loss"] / math.log(2) * tokens)
    assert final["test"]["unknown"] > 0.5 and "of the tokens unknown" in run.report.read_text()
    assert "tokens_per_character" not in run.folder.read_description()


def test_a_classifier_is_judged_on_what_one_could_not_learn_from(digits, tmp_path):
    (tmp_path / "photos" / "7").mkdir(parents=True)
    Image.new("RGB", (30, 20), (9, 9, 9)).save(tmp_path / "photos" / "7" / "one.png")
    judged = digits.evaluate(tmp_path / "photos")
    assert sum(map(sum, judged.details["confusion"])) == sum(judged.details["confusion"][7]) == 1
    assert "1 of 1 picture is in colour and read as grey, as the model needs" in judged.details["notes"]
    assert digits.evaluate("digits").details["truth"].shape == (1797,)


def test_a_split_of_another_source_is_refused(digits):
    with pytest.raises(ValueError, match=r"evaluate: digits is used whole, so the test split does not apply. Leave --split out"):
        digits.evaluate("digits", "test")
    with pytest.raises(ValueError, match="expected a split of train, validation, test, got 'tset'"):
        digits.evaluate(split="tset")


def test_a_source_that_is_missing_is_told_before_the_folder_of_an_old_run(digits, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "gone").symlink_to(digits.path)
    with pytest.raises(ValueError, match='no source "gone"'):
        twofold.fit("gone")


def test_a_text_with_too_little_to_judge_by_is_refused_before_anything_is_written(tmp_path):
    (tmp_path / "text.txt").write_text("one two three " * 65 + "x" * 120)
    with pytest.raises(ValueError, match="expected a text of at least 2 tokens"):
        twofold.fit(tmp_path / "text.txt", out=tmp_path / "run", unit="word", batch_size=4)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"architecture": "lenet6"}, "no model 'lenet6': did you mean \"lenet5\""),
        ({"architecture": 5}, "expected an architecture's name"),
        ({"config": {"stages": "8 M 8 M", "layers": 3}}, "vgg-mini: no option 'layers'"),
        ({"classes": ["a"]}, "expected classes to be a list of at least two names"),
        ({"preparation": {"mode": "CMYK"}}, "preparation"),
        ({"classes": ["a", "b"]}, "the config does not fit the data that the file describes: classes=10, not 2"),
        ({"vocabulary": {"unit": "word", "tokens": ["\ufffd", "a"]}}, "'vgg-mini' is for classify, but the file lists a vocabulary"),
    ],
)
def test_a_description_that_names_what_is_unknown_is_refused(digits, change, message):
    path = digits.path / "model.json"
    before = path.read_text()
    path.write_text(json.dumps({**json.loads(before), **change}))
    try:
        with pytest.raises(ValueError) as error:
            twofold.load(digits.path)
    finally:
        path.write_text(before)
    assert "model.json" in str(error.value) and message in str(error.value)


def test_a_text_is_learnt_as_in_a_loop_written_by_hand_bit_for_bit(tmp_path):
    """Streams side by side, windows one after the other, the state carried and cut."""
    (tmp_path / "text.txt").write_text("".join(f"{i} times {i} is {i * i}.\n" for i in range(100)))
    config = {"units": 16, "embedding": 8, "dropout": 0.2}
    settings = {"epochs": 1, "batch_size": 4, "window": 16, "learning_rate": 0.5, "optimizer": "sgd", "schedule": "constant", "warmup": 0.0}
    settings |= {"clip": 0.0, "weight_decay": 0.0, "quiet": True}
    run = twofold.fit(tmp_path / "text.txt", out=tmp_path / "run", config=config, **settings)
    torch.manual_seed(0)
    theirs = build("char-lstm", vocabulary=len(run.reading.vocabulary), **config)
    codes = run.open().train.codes_T.long()
    length = (len(codes) - 1) // 4
    x, y = codes[: 4 * length].view(4, length).t(), codes[1 : 4 * length + 1].view(4, length).t()
    step, state = torch.optim.SGD(theirs.parameters(), 0.5), None
    for first in range(0, length, 16):
        step.zero_grad()
        logits, state = theirs(x[first : first + 16], state)
        state = tuple(part.detach() for part in state)
        torch.nn.functional.cross_entropy(logits.flatten(0, 1), y[first : first + 16].flatten()).backward()
        step.step()
    assert all(map(torch.equal, run.model.parameters(), theirs.parameters()))


def test_channels_last_is_only_a_layout(tmp_path):
    settings = {"epochs": 2, "quiet": True, "config": {"stages": "8 8 M 8"}}
    plain, last = (twofold.fit("digits", out=tmp_path / str(on), channels_last=on, **settings) for on in (False, True))
    assert last.metrics["test"]["loss"] == pytest.approx(plain.metrics["test"]["loss"], rel=1e-3)
    assert twofold.load(last.path).predict(torch.zeros(1, 8, 8, dtype=torch.uint8))


def test_the_settings_reach_the_run(tmp_path):
    """Everything at once that goes together, and pictures and histograms for whoever looks on."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run = twofold.fit(
        "digits", out=tmp_path, epochs=2, quiet=True, config={"stages": "8 M 8", "dropout": 0.3}, augment="rotate=10", mixup=0.2,
        cutmix=0.5, ema=0.9, l1=1e-5, l2=1e-5, max_norm=3.0, penalise=["*"], init="he", init_bias=0.01, accumulate=4, clip_value=0.5,
        dropout=0.4, save_every=1e-4, keep_last=1, pictures=1, histograms=1, precision="bf16", optimizer="muon",
        schedule="one-cycle", low_momentum=0.85,
    )  # fmt: skip
    assert next(layer.p for layer in run.model.modules() if isinstance(layer, torch.nn.Dropout)) == 0.4
    assert max(float(w.detach().flatten(1).norm(dim=1).max()) for w in run.model.parameters() if w.dim() > 1) <= 3.0 + 1e-4
    assert len(list((run.path / "state").glob("*.safetensors"))) <= 2
    events = EventAccumulator(str(run.path / "tensorboard")).Reload().Tags()
    assert {"filters", "samples"} <= set(events["images"]) and "weights/features.conv1.weight" in events["histograms"] and events["graph"]
