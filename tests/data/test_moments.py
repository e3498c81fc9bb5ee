"""Mean and standard deviation are those of the definition, and do not depend on the parts in which values were seen."""

import numpy as np
import pytest

from twofold.data import moments as module
from twofold.data.moments import moments, sums

X = np.random.default_rng(0).integers(0, 256, (7, 3, 5, 4), dtype=np.uint8)


def test_they_are_those_of_the_values() -> None:
    found = moments(7 * 5 * 4, sums(X))
    assert found.mean() == pytest.approx(X.mean((0, 2, 3)) / 255, rel=1e-14)
    assert found.std() == pytest.approx(X.std((0, 2, 3)) / 255, rel=1e-14)


def test_parts_add_up_to_the_last_bit(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = sums(X)
    assert np.array_equal(sum(sums(X[b : b + 1]) for b in range(7)), whole)
    monkeypatch.setattr(module, "CHUNK", 2 * 5 * 4)
    assert np.array_equal(sums(X), whole)


def test_a_channel_of_one_value_has_no_spread_to_divide_by() -> None:
    x = X.copy()
    x[:, 1] = 77
    found = moments(7 * 5 * 4, sums(x))
    assert found.mean()[1] == 77 / 255
    assert [spread == 1.0 for spread in found.std()] == [False, True, False]
