"""The worst mistakes of a classifier: wrong answers, the highest loss first, that is the least probability of the truth."""

from typing import NamedTuple

from twofold.tasks.task import Evaluation


class Mistake(NamedTuple):
    """A wrong answer. place: of the picture among all; probability: of what was said; true_probability: of the truth; loss: in nats."""

    place: int
    name: str
    truth: str
    said: str
    probability: float
    true_probability: float
    loss: float


def worst(judged: Evaluation, classes: tuple[str, ...], count: int) -> list[Mistake]:
    """At most so many, of equal losses the first. Raises ValueError for fewer than one."""
    if count < 1:
        raise ValueError(f"mistakes: expected a number of 1 or more, got {count}.")
    details = judged.details
    losses_B, truth_B, said_B = details["losses"], details["truth"], details["predicted"]
    wrong_B = (truth_B != said_B).nonzero()[:, 0]
    chosen = wrong_B[losses_B[wrong_B].argsort(descending=True, stable=True)][:count]
    found = []
    for place, loss, truth, said in zip(
        *(each.tolist() for each in (chosen, losses_B[chosen], truth_B[chosen], said_B[chosen])), strict=True
    ):
        row_N = details["probabilities"][place]
        found.append(Mistake(place, details["names"][place], classes[truth], classes[said], float(row_N[said]), float(row_N[truth]), loss))
    return found
