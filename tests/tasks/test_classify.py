"""Classification: figures checked by hand and against scikit-learn."""

import warnings

import pytest
import torch
from sklearn.metrics import (
    accuracy_score,
    balanced_accuracy_score,
    confusion_matrix,
    f1_score,
    precision_recall_fscore_support,
    top_k_accuracy_score,
)

from twofold import nn
from twofold.layers.check import noise
from twofold.layers.heads import WithHeads
from twofold.tasks.classify import Classification, Pictures, assess, predict, ranks, with_top

CLASSES = tuple("abcdefg")


@pytest.fixture
def judged():
    logits = noise(200, 7, grad=False).mul(2)
    truth = torch.randint(0, 6, (200,), generator=torch.Generator().manual_seed(1))  # class g never occurs
    return logits.softmax(1), truth, assess(logits, truth, CLASSES)


def test_scores_are_scikit_learns(judged):
    probabilities, truth, evaluation = judged
    called = probabilities.argmax(1)
    assert evaluation.scores["accuracy"] == pytest.approx(accuracy_score(truth, called))
    assert evaluation.scores["top5"] == pytest.approx(top_k_accuracy_score(truth, probabilities, k=5, labels=range(7)))
    assert evaluation.scores["loss"] == pytest.approx(-probabilities[range(200), truth].log().mean().item())
    assert evaluation.details["confusion"] == confusion_matrix(truth, called, labels=range(7)).tolist()
    assert "top5" not in assess(noise(9, 5, grad=False), truth[:9].clamp(max=4), CLASSES[:5]).scores  # which would be 1


def test_each_class_has_scikit_learns_precision_recall_and_f1(judged):
    probabilities, truth, evaluation = judged
    wanted = precision_recall_fscore_support(truth, probabilities.argmax(1), labels=range(7), zero_division=0)
    rows = evaluation.details["per_class"]
    for name, column in zip(("precision", "recall", "f1", "count"), wanted, strict=True):
        assert [row[name] for row in rows] == pytest.approx(column.tolist())
    assert rows[6]["class"] == "g" and rows[6]["count"] == 0 and rows[6]["recall"] == 0


def test_means_over_classes_are_scikit_learns(judged):
    probabilities, truth, evaluation = judged
    called = probabilities.argmax(1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of a class that is said and never occurs
        assert evaluation.scores["balanced_accuracy"] == pytest.approx(balanced_accuracy_score(truth, called))
    assert evaluation.scores["macro_f1"] == pytest.approx(f1_score(truth, called, average="macro"))
    few = assess(torch.eye(7)[[0, 1, 1]], torch.tensor([0, 0, 1]), CLASSES).scores  # four classes neither occur nor are said
    assert few["balanced_accuracy"] == pytest.approx((0.5 + 1) / 2) and few["macro_f1"] == pytest.approx((2 / 3 + 2 / 3) / 2)


@pytest.mark.parametrize("k", range(1, 7))
def test_every_top_is_scikit_learns(judged, k):
    probabilities, truth, evaluation = judged
    assert with_top(evaluation, [k], 7).scores[f"top{k}"] == pytest.approx(top_k_accuracy_score(truth, probabilities, k=k, labels=range(7)))


def test_ranks_are_those_of_a_stable_sort_and_nothing_is_worse_than_nan():
    logits = torch.randint(0, 3, (300, 7), generator=torch.Generator().manual_seed(0)).float()  # many ties
    truth = torch.randint(0, 7, (300,), generator=torch.Generator().manual_seed(1))
    wanted = (logits.argsort(dim=1, descending=True, stable=True) == truth[:, None]).int().argmax(1)
    assert torch.equal(ranks(logits, truth), wanted)
    assert ranks(torch.full((1, 3), torch.nan), torch.tensor([0])).item() == 3


@pytest.mark.parametrize("k", [0, -1, 8])
def test_a_top_that_no_rank_has_is_refused(judged, k):
    with pytest.raises(ValueError, match=rf"evaluate: expected each top to be from 1 to 7, the number of classes, got {k}\."):
        with_top(judged[2], [1, k], 7)


def test_the_matrix_has_the_truth_in_its_rows():
    logits = torch.tensor([[-1.0, 1.0]])
    assert assess(logits, torch.tensor([0]), ("a", "b")).details["confusion"] == [[0, 1], [0, 0]]


def test_the_loss_smooths_the_target():
    model = nn.Identity()
    logits = torch.tensor([[2.0, 0.0, -1.0]])
    step = Classification(("a", "b", "c"), smoothing=0.3).loss(model, Pictures(logits, torch.tensor([0])))
    p = logits.softmax(1)[0].log()
    assert step.loss.item() == pytest.approx(-(0.8 * p[0] + 0.1 * p[1] + 0.1 * p[2]).item(), rel=1e-6)
    assert step.items == 1 and step.carried is None


class Headed(nn.Module):
    """Passes its input on, in training with two heads that do so, too."""

    def forward(self, x):
        return WithHeads(x, (x, -x)) if self.training else x


@pytest.mark.parametrize("goal", [None, torch.tensor([[0.25, 0.75]])], ids=["classes", "mixed"])
def test_auxiliary_heads_count_three_tenths_in_training_alone(goal):
    task, x, y = Classification(("a", "b"), smoothing=0.1), torch.tensor([[2.0, 0.5]]), torch.tensor([1])

    def cost(logits):
        return task.loss(nn.Identity(), Pictures(logits, y, goal)).loss.item()

    model = Headed()
    assert task.loss(model, Pictures(x, y, goal)).loss.item() == pytest.approx(cost(x) + 0.3 * (cost(x) + cost(-x)), rel=1e-6)
    assert torch.equal(predict(model, [Pictures(x, y)])[0], x) and model.training


def test_a_model_with_other_outputs_than_classes_is_told_so():
    with pytest.raises(ValueError, match=r"classify: expected outputs \(B=2, N=3\), a number for each class, got \(2, 5\)"):
        Classification(("a", "b", "c")).loss(nn.Linear(4, 5), Pictures(torch.zeros(2, 4), torch.tensor([0, 1])))


def test_prediction_happens_in_evaluation_mode_and_leaves_the_mode():
    model = nn.Sequential(nn.Flatten(), nn.Dropout(0.9)).train()
    x = noise(3, 4, grad=False).float()
    logits, truth = predict(model, [Pictures(x[:2], torch.tensor([0, 1])), Pictures(x[2:], torch.tensor([2]))])
    assert torch.equal(logits, x) and truth.tolist() == [0, 1, 2] and model.training


def test_a_model_that_fails_has_its_mode_again():
    model = nn.Linear(2, 3).train()
    with pytest.raises(ValueError):
        predict(model, [Pictures(torch.zeros(1, 5), torch.tensor([0]))])
    assert model.training


def test_the_best_epoch_has_the_highest_accuracy():
    task = Classification(("a", "b"))
    scores = [{"accuracy": 0.9, "loss": 0.1}, {"accuracy": 0.95, "loss": 0.5}]
    assert max(scores, key=task.rank) is scores[1]
    assert task.explain(scores[1]) == ("accuracy", "95.00 %")


@pytest.mark.parametrize(("choose_by", "best"), [("accuracy", 0), ("balanced_accuracy", 1), ("loss", 2)])
def test_another_score_may_decide(choose_by, best):
    scores = [{"accuracy": a, "balanced_accuracy": b, "loss": c} for a, b, c in ((0.9, 0.5, 0.4), (0.8, 0.7, 0.6), (0.7, 0.6, 0.3))]
    assert max(scores, key=Classification(("a", "b"), choose_by=choose_by).rank) is scores[best]


def test_a_certain_mistake_costs_what_the_logits_say():
    """Its probability, exp(-1000), is 0 in every floating-point format."""
    assert assess(torch.tensor([[1000.0, 0.0]]), torch.tensor([1]), ("a", "b")).scores["loss"] == 1000


def test_an_empty_split_is_refused():
    with pytest.raises(ValueError, match="there is no picture to evaluate"):
        predict(nn.Identity(), [])
