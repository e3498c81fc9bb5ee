"""Auxiliary heads: what they add to the loss."""

import torch

from twofold.layers.heads import WithHeads, loss_of


def test_plain_logits_cost_what_they_cost():
    assert loss_of(torch.tensor([[2.0]]), torch.sum) == 2


def test_each_head_adds_three_tenths_of_its_loss_and_passes_gradient():
    logits, first, second = (torch.full((1, 1), value, requires_grad=True) for value in (2.0, 1.0, 3.0))
    loss = loss_of(WithHeads(logits, (first, second)), lambda x: (x * x).sum())
    assert torch.allclose(loss, torch.tensor(4 + 0.3 * (1 + 9)))
    loss.backward()
    assert [round(x.grad.item(), 5) for x in (logits, first, second)] == [4.0, 0.6, 1.8]
