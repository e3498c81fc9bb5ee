"""Numbers looked up by seed, epoch, sample and use: even, independent, and the same whatever stands beside them."""

import numpy as np
import pytest

from twofold.data.augment_draws import GOLDEN, USES, Draws, _mix, _mixed


def test_the_mixer_is_splitmix64():
    assert int(_mix(np.array([GOLDEN], dtype=np.uint64))[0]) == _mixed(GOLDEN) == 0xE220A8397B1DCDAF  # its first output from seed 0


def test_the_numbers_of_a_run_never_change():
    drawn = Draws(7, 3, np.array([0, 41])).uniform("flip", 2)
    np.testing.assert_array_equal(drawn, [[0.07104494313317578, 0.17791501136711896], [0.2972613262811026, 0.5912121327217051]])


def test_a_number_depends_on_seed_epoch_sample_and_use_alone():
    every = Draws(1, 2, np.arange(50)).uniform("crop", 3)
    np.testing.assert_array_equal(Draws(1, 2, np.array([41, 7])).uniform("crop", 3), every[[41, 7]])
    np.testing.assert_array_equal(Draws(1, 2, np.arange(50)).of(9).uniform("crop", 1), every[9:10, :1])
    others = [Draws(0, 2, np.arange(50)), Draws(1, 3, np.arange(50)), Draws(2, 1, np.arange(50)), Draws(-1, 2, np.arange(50))]
    for other in [other.uniform("crop", 3) for other in others] + [Draws(1, 2, np.arange(50)).uniform("shift", 3)]:
        assert not (other == every).any()


def correlation(a, b):
    return np.corrcoef(a.ravel(), b.ravel())[0, 1]


def test_numbers_are_even_and_neighbours_are_strangers():
    n = 40_000
    u = Draws(0, 0, np.arange(n)).uniform("rotate", 4)
    assert u.min() >= 0 and u.max() < 1
    counts = np.histogram(u, 64, (0, 1))[0]
    chi_square = ((counts - counts.mean()) ** 2 / counts.mean()).sum()
    assert 25 < chi_square < 115  # 63 degrees of freedom: the middle 99.99 %
    joint = np.histogram2d(u[:, 0], u[:, 1], 16, ((0, 1), (0, 1)))[0]
    assert ((joint - joint.mean()) ** 2 / joint.mean()).sum() < 350  # 255 degrees of freedom
    pairs = [(u[1:, 0], u[:-1, 0]), (u[:, 0], u[:, 3])]
    pairs += [(u, Draws(*key, np.arange(n)).uniform("rotate", 4)) for key in ((0, 1), (1, 0))]
    pairs += [(u, Draws(0, 0, np.arange(n)).uniform(use, 4)) for use in ("scale", USES[-1])]
    for a, b in pairs:
        assert abs(correlation(a, b)) < 4.5 / np.sqrt(a.size)


def test_ranges_and_chances():
    draws = Draws(0, 0, np.arange(20_000))
    whole = draws.whole("crop", -2, 2)
    assert np.histogram(whole, 5, (-2.5, 2.5))[0] == pytest.approx(4000, rel=0.1)
    between = draws.between("scale", -3, 5)
    assert between.min() >= -3 and between.max() < 5 and between.mean() == pytest.approx(1, abs=0.06)
    assert draws.chance("flip", 0.25).mean() == pytest.approx(0.25, abs=0.012)
    assert not draws.chance("flip", 0).any() and draws.chance("flip", 1).all()
