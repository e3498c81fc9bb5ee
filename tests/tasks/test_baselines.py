"""Baselines: the majority class, and ridge regression on pixels beside scikit-learn's, for every kind of source."""

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from sklearn.linear_model import RidgeClassifierCV

from twofold.data.preparation import Preparation
from twofold.data.sources import DataOptions, open_source
from twofold.data.streamed import PictureFiles
from twofold.data.values import Images, ImageSource
from twofold.tasks.baselines import PENALTIES, Baselines, Linear, linear, majority_class, majority_in, ridge, share

SHARED = Path(__file__).parents[2].parent / "shared" / "data"


def images(*shape, classes=3, seed=0):
    """Random pictures whose classes can be told a little."""
    draw = torch.Generator().manual_seed(seed)
    y_B = torch.randint(0, classes, shape[:1], generator=draw)
    noise = torch.randint(0, 200, shape, generator=draw) + 12 * y_B[:, None, None, None]
    return Images(noise.to(torch.uint8), y_B, tuple(f"{number}.png" for number in range(shape[0])))


def scikit(preparation, parts, judged, averaged=lambda x_BCHW: x_BCHW):
    """The same with scikit-learn: accuracy and penalty."""

    def pixels(part):
        return averaged(preparation.normalise(part.pictures(torch.arange(len(part.y_B))))).flatten(1).double()

    x, x_judged = torch.cat([pixels(part) for part in parts]).numpy(), pixels(judged).numpy()
    model = RidgeClassifierCV(alphas=PENALTIES).fit(x, torch.cat([part.y_B for part in parts]).numpy())
    return pytest.approx(model.score(x_judged, judged.y_B.numpy())), model.alpha_


def test_the_majority_is_of_training_and_its_share_of_the_judged():
    assert majority_class(torch.tensor([2, 1, 2, 1, 0]), "abc") == "b"  # of equals the first
    assert share(torch.tensor([1, 0, 1, 2]), "abc", "b") == 0.5
    train, judged = (Images(torch.zeros(len(y), 1, 2, 2, dtype=torch.uint8), torch.tensor(y), ()) for y in ([1, 1, 0], [0, 0, 0, 1]))
    source = ImageSource("s", ("a", "b"), Preparation.of(train.x_BCHW), train, judged, None)
    assert majority_in(source) == {"class": "b", "validation": 0.25}
    assert majority_in(source._replace(test=train))["test"] == pytest.approx(2 / 3)


def test_by_hand():
    """One number each, -1 and 1: x y = 2, so W = 2/(2 + a), and leaving one out chooses the smallest a; the mean of T is 0."""
    weight_FN, bias_N, penalty = ridge(torch.tensor([[-1.0], [1.0]]), torch.tensor([0, 1]), 2)
    assert penalty == 1 and weight_FN.tolist() == [pytest.approx([-2 / 3, 2 / 3])] and bias_N.tolist() == pytest.approx([0, 0])


@pytest.mark.parametrize(
    ("pictures", "features", "classes"), [(300, 40, 3), (40, 40, 3), (60, 200, 4), (1100, 5, 10), (50, 30, 2)], ids=lambda n: str(n)
)
def test_ridge_is_that_of_scikit_learn(pictures, features, classes):
    draw = torch.Generator().manual_seed(pictures)
    y_B = torch.arange(pictures) % classes
    x_BF = 3 + torch.randn(pictures, features, generator=draw) + torch.randn(classes, features, generator=draw)[y_B]
    x_BF[:, 1] = 7  # the same in every picture
    weight_FN, bias_N, penalty = ridge(x_BF, y_B, classes)
    theirs = RidgeClassifierCV(alphas=PENALTIES).fit(x_BF.double().numpy(), y_B.numpy())
    assert penalty == theirs.alpha_
    own = slice(1, None) if classes == 2 else slice(None)  # of two classes it has one code
    np.testing.assert_allclose(weight_FN[:, own].T, np.atleast_2d(theirs.coef_), atol=1e-9)
    np.testing.assert_allclose(bias_N[own], theirs.intercept_, atol=1e-9)
    more = ridge(x_BF, y_B, classes + 1)  # a class without a picture changes nothing, and is never named
    assert more[2] == penalty and torch.allclose(more[0][:, :-1], weight_FN) and more[0][:, -1].abs().max() < 1e-12


@pytest.mark.parametrize("kind", ["digits", "folder", "files", "grey files", "records"])
def test_every_source_of_pictures_has_it(kind, tmp_path):
    random = np.random.default_rng(0)
    if "f" in kind:
        for number in range(60):
            (tmp_path / "ab"[number % 2]).mkdir(exist_ok=True)
            x = random.integers(0, 150 + 60 * (number % 2), (8, 6) if "grey" in kind else (8, 6, 3)).astype(np.uint8)
            Image.fromarray(x).save(tmp_path / "ab"[number % 2] / f"{number}.png")
    elif kind == "records":
        for name, count in (("data_batch_1", 60), ("test_batch", 20)):
            rows = random.integers(0, 200, (count, 3073)) + np.arange(count)[:, None] % 3 * 9
            rows[:, 0] = np.arange(count) % 3
            (tmp_path / f"{name}.bin").write_bytes(rows.astype(np.uint8).tobytes())
    source = open_source("digits") if kind == "digits" else open_source(tmp_path, DataOptions(hold="files") if "files" in kind else None)
    judged = source.test if source.test is not None else source.validation
    assert isinstance(judged, PictureFiles) == ("files" in kind)
    found = linear([source.train], judged, source.preparation, len(source.classes))
    size = (source.preparation.height, source.preparation.width)
    count = len(source.train.y_B)
    assert found == Linear(*scikit(source.preparation, [source.train], judged), *size, count, count)


@pytest.mark.parametrize(
    ("shape", "numbers", "size"),
    [((3, 64, 64), 3072, (32, 32)), ((3, 224, 224), 3072, (32, 32)), ((1, 28, 28), 3072, (28, 28)), ((1, 100, 50), 3072, (78, 39)),
     ((1, 1, 4096), 3072, (1, 3072)), ((3, 4096, 1), 3072, (1024, 1)), ((1, 6, 4), 6, (3, 2))],
)  # fmt: skip
def test_large_pictures_are_averaged_down(shape, numbers, size):
    part = images(9, *shape)
    preparation = Preparation.of(part.x_BCHW)
    found = linear([part], part, preparation, 3, numbers=numbers)
    assert (found.height, found.width) == size and shape[0] * size[0] * size[1] <= numbers
    if shape[1] % size[0] == 0 == shape[2] % size[1]:
        means = F.avg_pool2d(preparation.normalise(part.x_BCHW), (shape[1] // size[0], shape[2] // size[1]))
        assert (found.accuracy, found.penalty) == scikit(preparation, [part], part, lambda _: means)


def test_many_pictures_are_drawn_evenly_from_all_splits():
    train, validation, judged = images(80, 1, 3, 3), images(40, 1, 3, 3, seed=1), images(30, 1, 3, 3, seed=2)
    preparation, seen = Preparation.of(train.x_BCHW), []

    def read(part, rows_B):
        seen.append((part, rows_B.tolist()))
        return [part.pictures(rows_B)]

    found = linear([train, validation], judged, preparation, 3, read, most=60)
    assert (found.pictures, found.there) == (60, 120) and "on 3x3 pixels of 60 of 120 pictures" in found.told()
    (_, first), (_, second), (last, all_rows) = seen
    assert first == sorted(set(first)) and len(first) + len(second) == 60 and 30 <= len(first) <= 50
    assert last is judged and all_rows == list(range(30))
    assert linear([train, validation], judged, preparation, 3, read, most=60) == found
    everything = linear([train, validation], judged, preparation, 3)
    assert (everything.accuracy, everything.penalty) == scikit(preparation, [train, validation], judged)


def test_pictures_that_are_all_alike_name_the_majority():
    part = Images(torch.full((5, 1, 4, 4), 9, dtype=torch.uint8), torch.tensor([0, 1, 1, 1, 2]), ())
    assert linear([part], part, Preparation.of(part.x_BCHW), 3).accuracy == 0.6


def test_what_is_told():
    both = Baselines("cats", 0.4, Linear(0.712, 10.0, 32, 24, 20_000, 60_000))
    assert both.told() == (
        "linear, pixels 71.20 % (ridge regression on 32x24 pixels of 20,000 of 60,000 pictures)",
        "majority class 40.00 % (cats, the most frequent in training)",
    )
    assert Baselines("cats", 0.4).told() == both.told()[1:]


def test_too_few_pictures_are_refused():
    part = images(1, 1, 3, 3)
    with pytest.raises(ValueError, match="baselines: expected at least two pictures to learn from and one to judge by, got 1 and 1"):
        linear([part], part, Preparation.of(part.x_BCHW), 3)


def test_on_clothing():
    """What RidgeClassifierCV reaches on 32x32 pixels of these photographs."""
    place = SHARED / "clothing-small"
    if not place.is_dir():
        pytest.skip("no photographs of clothing: shared/data/clothing-small is absent")
    source = open_source(place, DataOptions(image_size=64))
    parts = [source.train, source.validation]
    found = linear(parts, source.test, source.preparation, len(source.classes))
    assert (found.accuracy, found.penalty) == scikit(source.preparation, parts, source.test, lambda x_BCHW: F.avg_pool2d(x_BCHW, 2))
