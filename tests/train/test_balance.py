"""Classes in unequal numbers: weights by their formulas, torch's weighted loss whatever the parts, and an order with every class alike."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from sklearn.utils.class_weight import compute_class_weight

import twofold
from twofold import fitting, nn
from twofold.data.augment import Augmenter, Recipe
from twofold.data.augment_geometry import Geometry
from twofold.data.image_folder import image_folder
from twofold.data.mixing import Mixing
from twofold.data.options import DataOptions
from twofold.data.preparation import Preparation
from twofold.data.values import Images
from twofold.preparing import prepare
from twofold.tasks.classify import Classification, Pictures
from twofold.train.balance import balanced_order, class_weights, weighted_goals
from twofold.train.batches import Fairness, PictureBatches
from twofold.train.learner import Learner
from twofold.train.memory import split
from twofold.train.settings import Settings
from twofold.train.shards import WHOLE, Shard
from twofold.train.streaming import batches_of, in_order

COUNTS = (3, 40, 11, 1)
LABELS = torch.repeat_interleave(torch.arange(4), torch.tensor(COUNTS))[torch.randperm(55, generator=torch.Generator().manual_seed(0))]
KIND = Preparation("L", 2, 2, (0.0,), (1.0,))
EVEN = Fairness(even=True)


def pictures(y_B=LABELS, size=2):
    x = torch.arange(len(y_B), dtype=torch.uint8)[:, None, None, None].expand(len(y_B), 1, size, size).contiguous()
    return Images(x, y_B, tuple(map(str, range(len(y_B)))))


def test_balanced_weights_are_scikit_learns():
    wanted = compute_class_weight("balanced", classes=np.arange(4), y=LABELS.numpy())
    assert class_weights(LABELS, 4, "balanced") == pytest.approx(wanted.tolist(), rel=1e-15)


@pytest.mark.parametrize("beta", [0.0, 0.5, 0.9, 0.999])
def test_effective_weights_are_those_of_the_paper_with_a_mean_of_one_over_the_pictures(beta):
    raw = np.array([1 / sum(beta**k for k in range(n)) for n in COUNTS])  # the effective number, as a sum
    found = np.array(class_weights(LABELS, 4, "effective", beta))
    assert found / found[0] == pytest.approx(raw / raw[0], rel=1e-12)
    assert (found * COUNTS).sum() == pytest.approx(55, rel=1e-12)


def test_the_effective_number_lies_between_no_weights_and_balanced_ones():
    assert class_weights(LABELS, 4, "effective", 0.0) == (1.0,) * 4
    assert class_weights(LABELS, 4, "effective", 1 - 1e-12) == pytest.approx(class_weights(LABELS, 4, "balanced"), rel=1e-9)


@pytest.mark.parametrize("how", ["balanced", "effective"])
def test_a_class_without_pictures_counts_nothing_and_changes_nothing(how):
    assert class_weights(LABELS, 6, how) == (*class_weights(LABELS, 4, how), 0.0, 0.0)


def loss_of(batch, classes=4, smoothing=0.2):
    return Classification(tuple("abcdef"[:classes]), smoothing).loss(nn.Flatten(), batch).loss


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_the_loss_is_torchs_weighted_mean_whole_in_parts_and_in_shards(smoothing):
    weights = class_weights(LABELS, 4, "balanced")
    fair = Fairness(weights, smoothing)

    def batches(shard=WHOLE):
        return PictureBatches(pictures(), KIND, 19, 3, shard, fairness=fair)

    torch.manual_seed(0)
    net = nn.Sequential(nn.Flatten(), nn.Linear(4, 4))
    task = Classification(tuple("abcd"), smoothing)
    for step, whole in enumerate(batches().epoch(1)):
        wanted = F.cross_entropy(net(whole.x_BCHW), whole.y_B, torch.tensor(weights), label_smoothing=smoothing)
        assert task.loss(net, whole).loss.item() == pytest.approx(wanted.item(), rel=1e-5)
        parts = split(whole, 4)
        assert sum(part.share * task.loss(net, part.batch).loss.item() for part in parts) == pytest.approx(wanted.item(), rel=1e-5)
        several = [batches(Shard(process, 3)) for process in range(3)]
        means = [each.share(step) * task.loss(net, list(each.epoch(1))[step]).loss.item() for each in several]
        assert sum(means) / 3 == pytest.approx(wanted.item(), rel=1e-5)


def test_mixed_pictures_have_torchs_weighted_loss_of_shares():
    weights, mixing = class_weights(LABELS, 4, "balanced"), Mixing(4, mixup=0.5, smoothing=0.1, seed=1)
    plain, fair = (PictureBatches(pictures(), KIND, 11, 3, mixing=mixing, fairness=each) for each in (Fairness(), Fairness(weights)))
    for one, other in zip(plain.epoch(0), fair.epoch(0), strict=True):
        logits = one.x_BCHW.flatten(1)
        assert torch.equal(one.x_BCHW, other.x_BCHW)
        assert loss_of(other).item() == pytest.approx(F.cross_entropy(logits, one.goal_BN, torch.tensor(weights)).item(), rel=1e-5)


def test_goals_of_a_part_are_rows_of_those_of_the_whole():
    weights = class_weights(LABELS, 4, "effective", 0.9)
    whole = weighted_goals(LABELS, weights, 0.1)
    assert torch.equal(weighted_goals(LABELS[7:20], weights, 0.1, LABELS), whole[7:20])
    step = loss_of(Pictures(torch.zeros(55, 4), LABELS, weighted_goals(LABELS, weights, 0.0)))
    assert step.item() == pytest.approx(np.log(4), rel=1e-6)  # a weighted mean of equal losses is that loss


def rows(epoch, seed=0, y_B=LABELS):
    return balanced_order(y_B, seed, epoch) % len(y_B)


def test_every_class_comes_equally_often_and_over_epochs_exactly_so():
    total = torch.zeros(4, dtype=torch.int64)
    for epoch in range(4):
        counts = torch.bincount(LABELS[rows(epoch)], minlength=4)
        assert counts.sum() == 55 and set(counts.tolist()) <= {13, 14}
        total += counts
    assert total.tolist() == [55] * 4


def test_no_picture_of_a_class_comes_again_before_all_of_it_have_come():
    for c, count in enumerate(COUNTS):
        sequence = torch.cat([each[LABELS[each] == c] for each in map(rows, range(12))])
        for begin in range(0, len(sequence) - count + 1, count):
            assert len(set(sequence[begin : begin + count].tolist())) == count


def test_a_picture_that_comes_again_has_another_number():
    order = balanced_order(LABELS, 0, 3)
    assert len(set(order.tolist())) == 55 and order.max() >= 12 * 55  # the only picture of its class, for the 13th time
    for row in set((order % 55).tolist()):
        times = (order[order % 55 == row] // 55).sort().values
        assert times.tolist() == list(range(len(times)))


def test_the_order_follows_from_seed_and_epoch():
    assert torch.equal(balanced_order(LABELS, 5, 7), balanced_order(LABELS, 5, 7))
    assert len({tuple(rows(epoch, seed).tolist()) for epoch in (0, 1) for seed in (0, 1)}) == 4
    assert balanced_order(torch.arange(9), 0, 2).sort().values.tolist() == list(range(9))  # equal classes: each picture once


def test_batches_are_mixed_begin_in_the_middle_and_agree_over_shards():
    batches = PictureBatches(pictures(), KIND, 8, 1, fairness=EVEN)
    whole = list(batches.epoch(2))
    assert [len(batch.y_B) for batch in whole] == [8] * 6 + [7] and batches.steps() == 7
    assert all(len(set(batch.y_B.tolist())) > 1 for batch in whole)
    assert all(torch.equal(batch.y_B, LABELS[(batch.x_BCHW[:, 0, 0, 0] * 255).round().long()]) for batch in whole)
    assert [b.y_B.tolist() for b in batches.epoch(2, 3)] == [b.y_B.tolist() for b in whole[3:]]
    assert batches.names(2, 4) == [str(round(value)) for value in (whole[4].x_BCHW[:, 0, 0, 0] * 255).tolist()]
    parts = [list(PictureBatches(pictures(), KIND, 8, 1, Shard(process, 3), fairness=EVEN).epoch(2)) for process in range(3)]
    for step, batch in enumerate(whole):
        assert torch.equal(torch.cat([part[step].x_BCHW for part in parts]), batch.x_BCHW)


def test_a_repeated_picture_is_varied_anew():
    y_B = torch.tensor([0] * 30 + [1])
    x = torch.randint(0, 256, (31, 1, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    turn = Augmenter(Recipe(Geometry(rotate=40)), seed=2)
    batches = PictureBatches(Images(x, y_B, ("",) * 31), Preparation("L", 8, 8, (0.0,), (1.0,)), 31, 0, augmenter=turn, fairness=EVEN)
    (batch,) = batches.epoch(0)
    same = batch.x_BCHW[batch.y_B == 1]
    assert len(same) in (15, 16) and len({tuple(each.flatten().tolist()) for each in same}) == len(same)


@pytest.fixture
def folder(tmp_path):
    random = np.random.default_rng(0)
    for name, count in (("cat", 30), ("dog", 6)):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for number in range(count):
            Image.fromarray(random.integers(0, 256, (8, 8, 3), dtype=np.uint8)).save(tmp_path / "photos" / name / f"{number:02}.png")
    return tmp_path / "photos"


@pytest.mark.parametrize("mixing", [None, Mixing(2, mixup=0.4, cutmix=1.0, seed=6)])
@pytest.mark.parametrize("fairness", [EVEN, Fairness((0.6, 3.0), 0.1)])
@pytest.mark.parametrize("workers", [0, 3])
def test_files_come_in_the_same_batches(folder, mixing, fairness, workers):
    held, filed = (image_folder(folder, DataOptions(hold=hold)) for hold in ("memory", "files"))
    varied = {"augmenter": Augmenter(Recipe(Geometry(flip="both", rotate=20)), seed=5), "mixing": mixing, "fairness": fairness}
    for shard in (WHOLE, Shard(1, 2)):
        one = batches_of(held.train, held.preparation, 8, 7, shard, **varied).epoch(1, 1)
        other = batches_of(filed.train, filed.preparation, 8, 7, shard, workers, **varied).epoch(1, 1)
        for a, b in zip(one, other, strict=True):
            assert torch.equal(a.x_BCHW, b.x_BCHW) and torch.equal(a.y_B, b.y_B)
            assert (a.goal_BN is b.goal_BN is None) or torch.equal(a.goal_BN, b.goal_BN)


def test_an_interrupted_run_goes_on_with_the_same_balance(folder, tmp_path, interrupt, monkeypatch):
    monkeypatch.setattr(fitting, "tell", lambda *given: None)  # no report
    how = {"epochs": 3, "batch_size": 8, "image_size": 8, "sampler": "balanced", "config": {"stages": "8 M"}, "quiet": True}
    whole = twofold.fit(folder, out=tmp_path / "whole", **how)
    interrupt(5)
    with pytest.raises(KeyboardInterrupt):
        twofold.fit(folder, out=tmp_path / "parts", **how)
    interrupt(10**9)
    parts = twofold.resume(tmp_path / "parts", quiet=True)
    assert all(torch.equal(a, b) for a, b in zip(whole.model.state_dict().values(), parts.model.state_dict().values(), strict=True))
    edited = (tmp_path / "parts" / "settings.yaml").read_text().replace("sampler: balanced", "sampler: shuffled")
    (tmp_path / "parts" / "settings.yaml").write_text(edited)
    with pytest.raises(ValueError, match=r"sampler was balanced, now shuffled"):
        twofold.resume(tmp_path / "parts", quiet=True)


def test_rare_classes_are_found(tmp_path):
    """A class of 1 in 10 that only its brightness tells a little: unweighted, hardly any of it is called; weighted, most of it is."""
    generator = torch.Generator().manual_seed(0)
    recalls = []
    for name, count, mean in (("common", 300, 100), ("rare", 30, 125)):
        (tmp_path / name).mkdir()
        for number in range(count):
            shade = int((torch.randn((), generator=generator) * 20 + mean).clamp(0, 255))
            Image.new("L", (4, 4), shade).save(tmp_path / name / f"{number:03}.png")
    for how in ({}, {"class_weights": "balanced"}, {"class_weights": "effective"}, {"sampler": "balanced"}):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Flatten(), nn.Linear(16, 2))
        job = prepare(Settings.of(str(tmp_path), epochs=8, learning_rate=0.03, image_size=4, **how), False, model)
        learner = Learner(model, job.task, job.settings, job.data.training.steps())
        for epoch in range(8):
            for batch in job.data.training.epoch(epoch):
                learner.step(batch)
            learner.progress.end_epoch({}, (epoch,))
        judged = job.task.evaluate(model, in_order(job.source.train, job.source.preparation))
        recalls.append(judged.details["per_class"][1]["recall"])
    plain, *fair = recalls
    assert plain < 0.25 < 0.6 < min(fair)


BAD = {
    "twice": ({"class_weights": "balanced", "sampler": "balanced"}, "class_weights=balanced and sampler=balanced both make up for rare"),
    "unread": ({"effective_beta": 0.9}, "effective_beta=0.9 is read by nothing: class_weights=none. Leave it out, or take class_weights="),
    "beta": ({"effective_beta": 1, "class_weights": "effective"}, "balance.effective_beta: expected less than 1.0, got 1."),
    "word": ({"class_weights": "some"}, "balance.class_weights: expected 'none', 'balanced' or 'effective', got 'some'."),
    "order": ({"sampler": "even"}, "balance.sampler: expected 'shuffled' or 'balanced', got 'even'."),
    "choice": ({"choose_by": "f1"}, "balance.choose_by: expected 'accuracy', 'balanced_accuracy' or 'loss', got 'f1'."),
}


@pytest.mark.parametrize("case", BAD)
def test_settings_that_cannot_be_are_refused(case):
    values, words = BAD[case]
    with pytest.raises(ValueError) as caught:
        Settings.of("digits", **values)
    assert words in str(caught.value)


def test_text_and_data_of_ones_own_have_no_use_for_it():
    for name, value in (("class_weights", "balanced"), ("sampler", "balanced"), ("choose_by", "loss")):
        with pytest.raises(ValueError, match=rf"{name}='{value}' is for pictures only"):
            Settings.of("x", **{name: value}).refuse_foreign(Settings.of("x"), "language")
