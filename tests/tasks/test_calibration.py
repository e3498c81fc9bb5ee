"""Calibration against NumPy, bin by bin; the temperature against a fine grid and in closed form; and that it never changes an answer."""

import numpy as np
import pytest
import torch

from twofold.layers.check import noise
from twofold.tasks.calibration import Calibration, fit_temperature, measure
from twofold.tasks.classify import assess

N = 7


@pytest.fixture(scope="module")
def outputs():
    """Logits, too large by the factor 2.5, and classes drawn from what they were before."""
    z_BN = noise(4000, N, grad=False).mul(2)
    y_B = torch.multinomial(z_BN.softmax(1), 1, generator=torch.Generator().manual_seed(1))[:, 0]
    return z_BN * 2.5, y_B


def numpy_figures(z_BN, y_B, bins=15):
    """By loops over bins, as Guo et al. write it."""
    z_BN, y_B = z_BN.double().numpy(), y_B.numpy()
    p_BN = np.exp(z_BN - z_BN.max(1, keepdims=True))
    p_BN /= p_BN.sum(1, keepdims=True)
    confidence, right = p_BN.max(1), p_BN.argmax(1) == y_B
    gaps, parts = [], []
    for m in range(1, bins + 1):
        inside = ((m - 1) / bins < confidence) & (confidence <= m / bins)
        if inside.any():
            gaps.append(abs(right[inside].mean() - confidence[inside].mean()))
            parts.append(inside.mean())
    onehot = np.eye(N)[y_B]
    return np.dot(gaps, parts), max(gaps), ((p_BN - onehot) ** 2).sum(1).mean(), -np.log(p_BN[np.arange(len(y_B)), y_B]).mean()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("bins", [1, 10, 15])
def test_figures_are_numpys(outputs, dtype, bins):
    z_BN, y_B = outputs[0].to(dtype), outputs[1]
    found = measure(z_BN, y_B, bins=bins)
    assert found[:4] == pytest.approx(numpy_figures(z_BN, y_B, bins), rel=1e-12)
    assert sum(found.count_M) == 4000 and len(found.count_M) == bins


def test_more_rows_than_are_taken_at_a_time_change_nothing(outputs, monkeypatch):
    z_BN, y_B = outputs
    whole = measure(z_BN, y_B)
    monkeypatch.setattr("twofold.tasks.calibration.ROWS", 77)
    assert measure(z_BN, y_B)[:4] == pytest.approx(whole[:4], rel=1e-14)


def test_an_edge_belongs_to_the_bin_that_ends_there():
    z_BN = torch.tensor([[0.8, 0.2], [0.6, 0.4], [0.5, 0.5]], dtype=torch.float64).log()
    assert measure(z_BN, torch.tensor([0, 1, 0]), bins=5) == Calibration(
        pytest.approx((2 * 0.05 + 0.2) / 3),  # (0.4, 0.6] holds two: right 1 of 2, said 0.55
        pytest.approx(0.2),
        pytest.approx((0.08 + 0.72 + 0.5) / 3),
        pytest.approx(-np.log(0.8 * 0.4 * 0.5) / 3),
        (0, 0, 2, 1, 0),
        (0, 0, 0.5, 1, 0),
        pytest.approx((0, 0, 0.55, 0.8, 0)),
    )


def test_the_temperature_has_the_smallest_loss_of_a_fine_grid(outputs):
    z_BN, y_B = outputs
    T = fit_temperature(z_BN, y_B)
    losses = {t: numpy_figures(z_BN / t, y_B)[3] for t in (*np.geomspace(0.05, 20, 300), T * 0.999, T * 1.001)}
    assert numpy_figures(z_BN / T, y_B)[3] < min(losses.values())
    assert abs(T - 2.5) < 0.1
    before, after = measure(z_BN, y_B), measure(z_BN, y_B, T)
    assert after.loss < before.loss and after.brier < before.brier and after.ece < 0.03 < before.ece


@pytest.mark.parametrize("size", [0.1, 3.0, 300.0])
@pytest.mark.parametrize("wrong", [1, 10, 40])
def test_two_classes_have_a_temperature_in_closed_form(size, wrong):
    """Logits (size, 0), right r times of n: the confidence has to be r/n, so size / T = log(r / (n - r))."""
    z_BN, y_B = torch.tensor([[size, 0.0]]).expand(100, 2), torch.tensor([1] * wrong + [0] * (100 - wrong))
    assert fit_temperature(z_BN, y_B) == pytest.approx(min(size / np.log((100 - wrong) / wrong), 100), rel=1e-6)


def test_doubled_logits_have_the_doubled_temperature(outputs):
    z_BN, y_B = outputs
    assert fit_temperature(2 * z_BN, y_B) == pytest.approx(2 * fit_temperature(z_BN, y_B), rel=1e-9)


@pytest.mark.parametrize("T", [0.013, 0.5, 3.7, 99.0])
def test_no_temperature_changes_an_answer_or_a_rank(outputs, T):
    z_BN, y_B = outputs[0].float().clone(), outputs[1]
    z_BN[:50] = 1.0  # ties
    z_BN[50:100, 3] = torch.nextafter(z_BN[50:100].amax(1), torch.tensor(torch.inf))  # a last bit ahead, which division may lose
    plain, warm = (assess(z_BN, y_B, tuple("abcdefg"), t) for t in (1.0, T))
    for name in ("accuracy", "top5", "balanced_accuracy", "macro_f1"):
        assert plain.scores[name] == warm.scores[name]
    assert all(torch.equal(plain.details[name], warm.details[name]) for name in ("predicted", "ranks"))
    assert plain.details["confusion"] == warm.details["confusion"]
    assert warm.details["uncalibrated"] == plain.details["calibration"] and warm.details["temperature"] == T
    assert warm.scores["loss"] == pytest.approx(warm.details["calibration"].loss, rel=1e-5) and "temperature" not in plain.details


REFUSED = {
    "right": ([[2.0, 0.0], [0.0, 1.0]], [0, 1], "calibrate: the model is right about all 2 pictures, so the more confident, the better"),
    "chance": ([[2.0, 0.0], [0.0, 1.0]], [1, 0], "on these 2 pictures the model's outputs say no more of the truth than chance"),
    "nan": ([[2.0, float("nan")]], [0], "calibrate: the model's outputs hold a number that is none"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_where_there_is_no_temperature_it_is_said(case):
    z_BN, y_B, words = REFUSED[case]
    with pytest.raises(ValueError) as caught:
        fit_temperature(torch.tensor(z_BN), torch.tensor(y_B))
    assert words in str(caught.value)
