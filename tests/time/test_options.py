"""The options of recurrent layers: each alone, in pairs and together against a composition of steps; draws, starts, and mistakes."""

import itertools
import sys
from pathlib import Path
from runpy import run_path
from types import SimpleNamespace

import pytest
import torch
from torch import nn as torch_nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

import twofold
from twofold.layers.check import noise
from twofold.time import face, gru, layer, lstm, options, rnn
from twofold.time.gru import GRU
from twofold.time.lstm import LSTM
from twofold.time.rnn import RNN

composition = SimpleNamespace(**run_path(str(Path(__file__).parent / "composition.py")))
given_state, judged, parts, same = composition.given_state, composition.judged, composition.parts, composition.same
FACES = {"RNN": RNN, "GRU": GRU, "LSTM": LSTM}
KINDS = {"tanh": ("RNN", {}), "relu": ("RNN", {"nonlinearity": "relu"}), "GRU": ("GRU", {}), "LSTM": ("LSTM", {})}
LENGTHS = (2, 5, 0, 4)


COMMON = {
    "norm": {"layer_norm": True},
    "zoneout": {"zoneout": 0.3},
    "recurrent dropout": {"recurrent_dropout": 0.4},
    "weight dropout": {"weight_dropout": 0.4},
    "learnt": {"learn_state": True},
    "no bias": {"bias": False},
}
OFFERED = {
    "tanh": COMMON,
    "relu": COMMON,
    "GRU": {**COMMON, "before": {"reset": "before"}},
    "LSTM": {
        **COMMON,
        "zoneout": {"zoneout": (0.3, 0.6)},
        "peephole": {"peephole": True},
        "coupled": {"coupled": True},
        "projection": {"proj_size": 3},
    },
}
CHOICES = [
    (kind, "+".join(chosen))
    for kind, offered in OFFERED.items()
    for size in (0, 1, 2, len(offered))
    for chosen in itertools.combinations(offered, size)
]


@pytest.fixture
def draws(monkeypatch):
    """What the next call draws, as it is drawn: a composition.Drawn for a layer of S directions."""

    def watch(faces, S):
        drawn = composition.Drawn({}, {}, {}, {})

        def mask(probability, shape, like):
            made = options.draw_mask(probability, shape, like)
            drawn.masks[len(drawn.masks)] = made
            return made

        def zone(share, shape, like, training):
            made = options.draw_zone(share, shape, like, training)
            if training:
                place = next((k for k in range(100) if len(drawn.zones.get(k, ())) < faces.tensors), 0)
                drawn.zones[place] = (*drawn.zones.get(place, ()), made)
            return made

        def dropout(x, probability, training):
            made = torch.nn.functional.dropout(torch.ones_like(x), probability, training)
            if x.dim() == 2:
                drawn.weights[len(drawn.weights)] = made
            else:
                drawn.between[len(drawn.between) + 1] = made
            return x * made

        for name, value in (("draw_mask", mask), ("draw_zone", zone), ("F", SimpleNamespace(dropout=dropout))):
            monkeypatch.setattr(faces.module, name, value)
        return drawn

    return watch


def examine(draws, make, module, tensors, training, lengths, settings):
    """The layer against the composition: values and all gradients."""
    torch.manual_seed(1)
    made = make(2, 4, 2, bidirectional=True, dropout=0.3, **settings).double().train(training)
    for seed, parameter in enumerate(made.parameters()):
        parameter.data = 0.6 * noise(*parameter.shape, seed=seed, grad=False)
    x = noise(5, 4, 2, grad=False)
    for b, n in enumerate(lengths or ()):
        x[n:, b] = float("nan")
    x.requires_grad_()
    learnt = settings.get("learn_state", False)
    hx = None if learnt else given_state(made, 4)
    drawn = draws(SimpleNamespace(module=module, tensors=tensors), 2)
    with twofold.route("plain"):
        y, last = made(x, hx, lengths)
    assert list(drawn.between) == [1] and bool((drawn.between[1] == 0).any()) is training
    state = tuple(getattr(made, f"{name}_0").expand(-1, 4, -1) for name in "hc"[:tensors]) if learnt else parts(hx)
    shares = parts(made.zoneout) * (tensors // len(parts(made.zoneout))) if not training and made.zoneout else ()
    wanted, finals = composition.run(made, x, state, lengths, drawn, shares)
    leaves = [x, *made.parameters(), *(() if learnt else parts(hx))]
    same(judged((y, *parts(last)), leaves), judged((wanted, *finals), leaves), 1e-11)


@pytest.mark.parametrize(("kind", "choice"), CHOICES)
def test_every_option_alone_in_pairs_and_all_together(draws, kind, choice):
    name, own = KINDS[kind]
    settings = dict(own)
    for option in choice.split("+") if choice else ():
        settings |= OFFERED[kind][option]
    for training, lengths in ((True, LENGTHS), (False, None)):
        examine(draws, FACES[name], face, 2 if name == "LSTM" else 1, training, lengths, settings)


def in_use(name, num_layers=2, **settings):
    torch.manual_seed(2)
    return FACES[name](3, 4, num_layers, bidirectional=True, **settings).double().eval()


@pytest.mark.parametrize("name", FACES)
def test_zoneout_of_0_is_none_and_of_1_stands_still(name):
    x, plain = noise(5, 2, 3), in_use(name)
    for share, training in itertools.product((0.0, 1.0), (False, True)):
        zoned = in_use(name, zoneout=share).train(training)
        hx = given_state(zoned, 2)
        y, last = zoned(x, hx)
        if share:
            same(parts(last), parts(hx), 0)
        else:
            same([y], [plain(x, hx)[0]], 0)


@pytest.mark.parametrize("name", FACES)
def test_in_use_zoneout_is_the_mean_of_what_training_does_in_one_step(name):
    made, x = in_use(name, 1, zoneout=0.3), noise(1, 1, 3)
    hx = given_state(made, 1)
    wanted, _ = made(x, hx)
    many = tuple(part.expand(-1, 20_000, -1) for part in parts(hx))
    torch.manual_seed(0)
    mean = made.train()(x.expand(1, 20_000, 3), many if name == "LSTM" else many[0])[0].mean(1)
    assert (mean - wanted[:, 0]).abs().max() < 0.02


@pytest.mark.parametrize("name", FACES)
def test_masks_are_new_in_every_call_from_torchs_generator_and_only_in_training(name):
    for option in ("zoneout", "recurrent_dropout", "weight_dropout"):
        made, x = in_use(name, **{option: 0.5}).train(), noise(5, 2, 3)
        torch.manual_seed(4)
        first, second = made(x)[0], made(x)[0]
        torch.manual_seed(4)
        assert torch.equal(made(x)[0], first) and not torch.allclose(first, second)
        before = torch.get_rng_state()
        assert torch.equal(made.eval()(x)[0], made(x)[0]) and torch.equal(torch.get_rng_state(), before)


def test_recurrent_dropout_is_one_mask_for_all_steps_and_leaves_the_grus_memory_alone():
    gates = {"bias_ih_l0": torch.tensor([50.0] * 8 + [0.0] * 4)}  # z = 1: the state is kept, whatever its products see
    made = GRU(3, 4, recurrent_dropout=0.5).double()
    made.load_state_dict({**made.state_dict(), **gates})
    hx = given_state(made, 2)
    y, last = made(torch.zeros(6, 2, 3, dtype=torch.float64), hx)
    same([last], [hx], 1e-12)
    assert torch.allclose(y, hx.expand(6, 2, 4))


def test_weight_dropout_drops_the_same_weights_at_all_steps_and_makes_up_for_them():
    made, x = LSTM(20, 20, weight_dropout=0.3).double(), noise(6, 2, 20)
    torch.manual_seed(3)
    (dropped,) = torch.autograd.grad(made(x)[0].sum(), made.weight_hh_l0)
    assert abs((dropped == 0).double().mean().item() - 0.3) < 0.04
    thinned = LSTM(20, 20).double()
    thinned.load_state_dict(made.state_dict())
    with torch.no_grad():
        thinned.weight_hh_l0 *= (dropped != 0).double() / 0.7
    torch.manual_seed(3)
    same([made(x)[0]], [thinned(x)[0]])


# How they start


@pytest.mark.parametrize("name", FACES)
def test_what_torch_has_starts_as_torchs_whatever_is_asked_besides(name):
    for settings in ({}, {"layer_norm": True, "learn_state": True, "zoneout": 0.1}):
        torch.manual_seed(3)
        ours = FACES[name](3, 4, 2, bidirectional=True, **settings).state_dict()
        torch.manual_seed(3)
        theirs = getattr(torch_nn, name)(3, 4, 2, bidirectional=True).state_dict()
        assert all(torch.equal(ours[key], value) for key, value in theirs.items())


def test_further_weights_start_as_they_should_and_do_so_again():
    made = LSTM(3, 64, 2, bidirectional=True, peephole=True, layer_norm=True, learn_state=True, forget_bias=1.0)
    for _ in range(2):
        for key, value in made.named_parameters():
            if key.startswith(("norm_c_bias", "h_0", "c_0")):
                assert not value.count_nonzero()
            elif key.startswith("norm"):
                assert (value == 1).all()
            elif key.startswith("peephole"):
                assert value.abs().max() <= 1 / 8 and value.std() > 0.05 and len(value.unique()) > 100
        assert (made.bias_ih_l1 + made.bias_hh_l1)[64:128].tolist() == [1.0] * 64
        with torch.no_grad():
            for value in made.parameters():
                value.fill_(7)
        made.reset_parameters()


@pytest.mark.parametrize(
    ("name", "settings"), [("RNN", {}), ("GRU", {}), ("LSTM", {}), ("LSTM", {"coupled": True}), ("LSTM", {"proj_size": 3})]
)
def test_hidden_weights_start_orthogonal_or_as_the_identity_gate_by_gate(name, settings):
    for how in ("orthogonal", "identity")[: 1 if "proj_size" in settings else 2]:
        made = FACES[name](3, 5, 2, bidirectional=True, hidden_init=how, **settings)
        blocks = [block for key, value in made.named_parameters() if key.startswith("weight_hh") for block in value.split(5)]
        assert len(blocks) == 4 * made.cell.gates
        for block in blocks:
            assert torch.allclose(block.t() @ block, torch.eye(block.shape[1]), atol=1e-5)
            assert torch.equal(block, torch.eye(5)) is (how == "identity")
        assert len({block.sum().item() for block in blocks}) == (1 if how == "identity" else len(blocks))


def test_a_learnt_state_is_where_rows_begin_unless_they_are_told_another():
    made, x = GRU(3, 4, 2, learn_state=True).double(), noise(5, 2, 3)
    made.h_0.data = noise(2, 1, 4, grad=False)
    same([made(x)[0], made(x, lengths=[0, 0])[1]], [made(x, made.h_0.expand(2, 2, 4))[0], made.h_0.expand(2, 2, 4)])
    other = noise(2, 2, 4, seed=1)
    assert not torch.allclose(made(x, other)[0], made(x)[0])
    (gradient,) = torch.autograd.grad(made(x, other)[0].sum(), made.h_0, allow_unused=True)
    assert gradient is None
    (gradient,) = torch.autograd.grad(made(x)[1].sum(), made.h_0)
    assert gradient.count_nonzero() == 8


# Mistakes in the code that the tests above must see

MUTANTS = {
    "reads forwards in both directions": (layer, "return Run(self.lengths_B, direction > 0,", "return Run(self.lengths_B, False,"),
    "lengths forgotten": (layer, "return Run(self.lengths_B, direction > 0,", "return Run(None, direction > 0,"),
    "mask of the first direction for both": (layer, "self.masks[direction] if", "self.masks[0] if"),
    "zones of the first direction for both": (layer, "self.zones[direction] if", "self.zones[0] if"),
    "weights of the first direction for both": (layer, "flat[s * fields : (s + 1) * fields]", "flat[:fields]"),
    "state of the first direction for both": (layer, "tuple(part[s] for part in state)", "tuple(part[0] for part in state)"),
    "directions exchanged": (layer, "(torch.cat(sides, -1), *map", "(torch.cat(sides[::-1], -1), *map"),
    "final states exchanged": (layer, "zip(*finals, strict=True))), tuple(saved)", "zip(*finals[::-1], strict=True))), tuple(saved)"),
    "gradient of one direction": (layer, "return sum(dxs[1:], dxs[0]),", "return dxs[0],"),
    "gradients of the states exchanged": (layer, "zip(*dstates, strict=True)", "zip(*dstates[::-1], strict=True)"),
    "gradient of the final state of one direction": (layer, "tuple(part[s] for part in dfinal)", "tuple(part[0] for part in dfinal)"),
    "gradient of the outputs exchanged": (
        layer,
        "enumerate(dy_TBR.chunk(len(saved), -1))",
        "enumerate(dy_TBR.chunk(len(saved), -1)[::-1])",
    ),
    "weights of the first layer": (face, "self._names[place]]", "self._names[place % 2]]"),
    "state of the first layer": (face, "part[layer * S : (layer + 1) * S] for part", "part[:S] for part"),
    "final states of the last layer alone": (
        face,
        "torch.cat(part) for part in zip(*finals",
        "torch.cat(part[-1:] * 2) for part in zip(*finals",
    ),
    "dropout before the first layer": (face, "self._dropout(y_TBR) if layer else x_TBD", "self._dropout(y_TBR)"),
    "no dropout between the layers": (face, "self._dropout(y_TBR) if layer else x_TBD", "y_TBR"),
    "dropout in use": (face, "F.dropout(y_TBU, self.dropout, self.training)", "F.dropout(y_TBU, self.dropout, True)"),
    "weight dropout in use": (face, "if training and options.weight_dropout:", "if options.weight_dropout:"),
    "weight dropout on the input's weights": (
        face,
        "_replace(weight_hh=F.dropout(each.weight_hh,",
        "_replace(weight_ih=F.dropout(each.weight_ih,",
    ),
    "recurrent dropout in use": (face, "if training and options.recurrent_dropout:", "if options.recurrent_dropout:"),
    "recurrent dropout alike in all rows": (
        face,
        "draw_mask(options.recurrent_dropout, (B, widths[0]), like)",
        "draw_mask(options.recurrent_dropout, (1, widths[0]), like).expand(B, -1)",
    ),
    "zoneout drawn in use": (options, "if not share or not training:", "if not share:"),
    "zoneout's complement": (options, "like.new_full(shape, share)", "like.new_full(shape, 1 - share)"),
    "dropped units not made up for": (
        options,
        "F.dropout(like.new_ones(shape), probability, True)",
        "F.dropout(like.new_ones(shape), probability, True) * (1 - probability)",
    ),
    "the learnt state unused": (face, "if self.options.learn_state:\n            return", "if False:\n            return"),
    "lengths unused": (
        face,
        "y_TBR, state = self._stack(x_TBD, initial, lengths_B)\n        if",
        "y_TBR, state = self._stack(x_TBD, initial, None)\n        if",
    ),
    "input left with its batch in front": (face, "else input.transpose(0, 1) if self.batch_first else input", "else input"),
    "output left with its steps in front": (face, "y_TBR.transpose(0, 1) if self.batch_first else y_TBR", "y_TBR"),
    "gates of the other direction": (face, "saved[0].steps", "saved[-1].steps"),
    "cells before zoneout": (face, "(step.c_before_BU for step in steps[1:]), final[1]]", "(step.c_BU for step in steps[:-1]), final[1]]"),
    "packed rows not put back": (face, "return to_packed(y_TBR, packed)", "return to_packed(y_TBR.flip(1), packed)"),
    "torch's route for options": (gru, 'if self.reset == "before":', "if False:"),
    "coupled by torch's gates": (lstm, "if self.coupled:\n            return lstm_coupled", "if False:\n            return lstm_coupled"),
    "peepholes left out": (lstm, "(gates - 1) * hidden_size if peephole else None", "None"),
    "norms left out": (rnn, "norm_sizes(1, hidden_size, layer_norm)", "norm_sizes(1, hidden_size, False)"),
}


def faces_with(monkeypatch, mutated, module, right, wrong):
    """RNN, GRU and LSTM made of code with one mistake in it, and the module that draws."""
    made = {}
    for each in (layer, options, face, rnn, gru, lstm):
        made[each] = mutated(each, right, wrong) if each is module else mutated(each, "\nfrom typing import", "\nfrom typing import")
        monkeypatch.setitem(sys.modules, each.__name__, made[each])
    return SimpleNamespace(RNN=made[rnn].RNN, GRU=made[gru].GRU, LSTM=made[lstm].LSTM, face=made[face], options=made[options])


BOTH = {"num_layers": 2, "bidirectional": True, "dropout": 0.3}


def scrutinise(faces, draws):
    """A few of the questions above, to classes that may have a mistake; AssertionError or another error where one shows."""
    for name, tensors, settings in (
        ("RNN", 1, {"layer_norm": True}),
        ("GRU", 1, {"reset": "before", "zoneout": 0.3, "recurrent_dropout": 0.4}),
        ("LSTM", 2, {"peephole": True, "weight_dropout": 0.4, "learn_state": True}),
        ("LSTM", 2, {"coupled": True, "zoneout": (0.3, 0.6)}),
    ):
        for training, lengths in ((True, LENGTHS), (False, None)):
            examine(draws, getattr(faces, name), faces.face, tensors, training, lengths, settings)
        torch.manual_seed(1)
        made = getattr(faces, name)(3, 4, batch_first=True, **BOTH, **settings).double().eval()
        assert "norm_ih_l0" in dict(made.named_parameters()) or "layer_norm" not in settings
        assert "peephole_l0" in dict(made.named_parameters()) or "peephole" not in settings
        x, zones = noise(4, 5, 3), parts(made.zoneout) * (tensors // len(parts(made.zoneout))) if made.zoneout else ()
        state = tuple(getattr(made, f"{n}_0").expand(-1, 4, -1) for n in "hc") if made.options.learn_state else None
        wanted, _ = composition.run(made, x.transpose(0, 1), state, shares=zones)
        same([made(x)[0]], [wanted.transpose(0, 1)], 1e-11)
        packed = pack_padded_sequence(x, [2, 5, 1, 4], batch_first=True, enforce_sorted=False)
        y, _ = pad_packed_sequence(made(packed)[0], batch_first=True)
        same([y], [made(x, lengths=[2, 5, 1, 4])[0]])
        gates = made.gates(x)
        same([gates["hidden"][1]], [wanted[..., :4]], 1e-11)
        if tensors == 2:
            c = made(x)[1][1][::2]
            start = torch.zeros_like(c) if state is None else state[1][::2]
            before, m = torch.cat((start[:, None], gates["cell"][:, :-1]), 1), zones[1] if zones else 0
            new = gates["forget"] * before + gates["input"] * gates["candidate"]
            same([gates["cell"], gates["cell"][:, -1]], [m * before + (1 - m) * new, c], 1e-11)
    mask, zone = faces.options.draw_mask(0.4, (40_000,), torch.zeros(1)), faces.options.draw_zone(0.2, (40_000,), torch.zeros(1), True)
    assert abs(mask.mean().item() - 1) < 0.03 and abs((mask == 0).float().mean().item() - 0.4) < 0.02 and len(mask.unique()) == 2
    assert abs(zone.mean().item() - 0.2) < 0.02 and zone.unique().tolist() == [0, 1]
    assert faces.options.draw_zone(0.2, (3,), torch.zeros(1), False) == 0.2


def test_the_scrutiny_passes_what_is_right(draws, mutated, monkeypatch):
    scrutinise(faces_with(monkeypatch, mutated, layer, "from typing import", "from typing import"), draws)


@pytest.mark.parametrize("mistake", MUTANTS)
def test_mistakes_are_seen(mistake, mutated, monkeypatch, draws):
    faces = faces_with(monkeypatch, mutated, *MUTANTS[mistake])
    with pytest.raises((AssertionError, RuntimeError, IndexError, KeyError, AttributeError)):
        scrutinise(faces, draws)
