"""The grammar of a sweep: what it makes of every form, and where it points when a character is wrong."""

import pytest

from twofold.models.vgg_small import VGGConfig
from twofold.train.domain import Choice, Range, ends, kinds_of, parse, spoken
from twofold.train.settings import Settings

KINDS = {
    "learning_rate": "real", "epochs": "whole", "optimizer": "word", "graph": "flag", "config.units": "whole", "config.odd": "any",
    "config.epochs": "whole",
}  # fmt: skip


@pytest.mark.parametrize(
    ("text", "name", "domain"),
    [
        ("lr=1e-4..1e-1:log", "learning_rate", Range(1e-4, 0.1, log=True)),
        ("learning-rate=0..1", "learning_rate", Range(0.0, 1.0)),
        ("learning_rate=.5..2.:step=0.25", "learning_rate", Range(0.5, 2.0, step=0.25)),
        ("epochs=1..9:log", "epochs", Range(1, 9, log=True)),
        ("units=64..256:step=64", "config.units", Range(64, 256, step=64)),
        ("units=64|128", "config.units", Choice((64, 128))),
        ("lr=1|0.1", "learning_rate", Choice((1.0, 0.1))),
        ("optimizer=adam|sgd", "optimizer", Choice(("adam", "sgd"))),
        ("graph=true|False", "graph", Choice((True, False))),
        ("odd=0..1", "config.odd", Range(0, 1)),
        ("odd=0..1.0", "config.odd", Range(0.0, 1.0)),
        ("odd=a|2|0.5|true", "config.odd", Choice(("a", 2, 0.5, True))),
        (" lr = -1 .. +1 : step = 0.5 ", "learning_rate", Range(-1.0, 1.0, step=0.5)),
    ],
)
def test_every_form(text, name, domain):
    (found,) = parse(text, KINDS).items()
    assert found == (name, domain)
    assert [type(value) for value in ends(found[1])] == [type(value) for value in ends(domain)]
    assert parse(spoken({name: domain}).replace("config.", ""), KINDS) == {name: domain}


def test_a_setting_comes_before_the_models_own_of_the_same_name():
    assert list(parse("epochs=1..2,units=1|2", KINDS)) == ["epochs", "config.units"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "expected setting=domain, got ''. For example: lr=1e-4..1e-1:log,dropout=0..0.5,units=64|128|256. Character 1: >>>"),
        ("lr=1..2,units", "expected setting=domain, got 'units'. For example: .* Character 9: lr=1..2,>>>units"),
        ("lr=1..2,,", "expected setting=domain, got ''. For example: .* Character 9: lr=1..2,>>>,"),
        ("lrr=1..2", "no setting 'lrr'. .* Character 1: >>>lrr=1..2"),
        ("epochs=1..2, unit=1|2", "no setting 'unit'. Did you mean \"units\"?. Character 14: epochs=1..2, >>>unit=1|2"),
        ("lr=1..2,learning_rate=1..2", "learning_rate is there twice. Character 9: lr=1..2,>>>learning_rate=1..2"),
        ("lr=", "expected a domain for lr: low..high, or values with | between. Character 4: lr=>>>"),
        (
            "lr=0.1",
            "'0.1' leaves nothing to search: expected low..high, or values with | between. One value? Set it. Character 4: lr=>>>0.1",
        ),
        ("lr=a..1", "expected a number for lr, got 'a'. Character 4: lr=>>>a..1"),
        ("lr=1..", "expected a number for lr, got ''. Character 7: lr=1..>>>"),
        ("lr=1..nan", "expected a number for lr, got 'nan'. Character 7: lr=1..>>>nan"),
        ("lr=1..1e999", "1e999 is too large. Character 7: lr=1..>>>1e999"),
        ("lr=2..1", "expected lr to end above 2, got 1. Character 7: lr=2..>>>1"),
        ("lr=1..1", "expected lr to end above 1, got 1. Character 7: lr=1..>>>1"),
        ("lr=0..1:log", "a logarithmic range begins above 0, got 0. Character 4: lr=>>>0..1:log"),
        ("lr=1..2:lug", "expected log or step=NUMBER after the colon, got 'lug'. Character 9: lr=1..2:>>>lug"),
        ("lr=1..2:step", "expected log or step=NUMBER after the colon, got 'step'. Character 9: lr=1..2:>>>step"),
        ("lr=1..2:step=0", "expected a step above 0 and at most 1, got 0. Character 14: lr=1..2:step=>>>0"),
        ("lr=1..2:step=3", "expected a step above 0 and at most 1, got 3. Character 14: lr=1..2:step=>>>3"),
        ("epochs=1..9:step=0.5", "expected a whole number for epochs, got '0.5'. Character 18: epochs=1..9:step=>>>0.5"),
        ("epochs=1..9.5", "expected a whole number for epochs, got '9.5'. Character 11: epochs=1..>>>9.5"),
        ("units=64|x", "expected a whole number for units, got 'x'. Character 10: units=64|>>>x"),
        ("units=64|", "expected a value for units before or after |. Character 10: units=64|>>>"),
        ("units=64|64", "expected values for units that differ, got 64|64. Character 7: units=>>>64|64"),
        (
            "optimizer=1..2",
            "optimizer is no number: expected values with | between, such as optimizer=a|b. Character 11: optimizer=>>>1..2",
        ),
        ("graph=0..1", "graph is no number: expected values with | between, such as graph=true|false. Character 7: graph=>>>0..1"),
        ("graph=yes|no", "expected true or false for graph, got 'yes'. Character 7: graph=>>>yes|no"),
    ],
)
def test_every_mistake_is_pointed_at(text, message):
    before, dots, after = message.partition(".*")
    with pytest.raises(ValueError) as caught:
        parse(text, KINDS)
    said = str(caught.value)
    assert said.startswith(f"sweep: {before}") and said.endswith(after) and (dots or said == f"sweep: {before}")


def test_the_kinds_of_the_settings_and_of_a_models_configuration():
    kinds = kinds_of(Settings)
    wanted = {"learning_rate": "real", "epochs": "whole", "items_per_epoch": "whole", "optimizer": "word", "model": "word", "unit": "word"}
    assert wanted.items() <= kinds.items() and not {"config", "data", "learning"} & set(kinds)
    assert kinds_of(VGGConfig)["dropout"] == "real" and kinds_of(VGGConfig)["stages"] == "word"
