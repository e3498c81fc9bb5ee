"""Muon against torch's own for matrices, and against the singular values for kernels of every form."""

import math

import pytest
import torch

from twofold.train.muon import ITERATIONS, QUINTIC, Muon, orthogonalise


def by_singular_values(u):
    """The law on a matrix: only the singular values change, each by the quintic."""
    left, s, right = torch.linalg.svd(u, full_matrices=False)
    s = s / s.norm()
    for _ in range(ITERATIONS):
        s = QUINTIC[0] * s + QUINTIC[1] * s**3 + QUINTIC[2] * s**5
    return left @ torch.diag(s) @ right


@pytest.mark.parametrize("shape", [(5, 5), (3, 8), (8, 3)])
def test_orthogonalise_changes_the_singular_values_alone_and_brings_them_near_1(shape):
    torch.manual_seed(0)
    u = torch.randn(2, *shape, dtype=torch.float64)
    x = orthogonalise(u)
    for one, matrix in zip(x, u, strict=True):
        torch.testing.assert_close(one, by_singular_values(matrix))
        assert (torch.linalg.svdvals(one) - 1).abs().max() < 0.35
    assert orthogonalise(torch.zeros(1, 2, 3)).tolist() == torch.zeros(1, 2, 3).tolist()


def test_matrices_step_as_torchs_muon():
    torch.manual_seed(0)
    shapes = [(6, 6), (6, 6), (4, 9), (9, 4)]
    start = [torch.randn(shape) for shape in shapes]
    ours, theirs = ([torch.nn.Parameter(w.clone()) for w in start] for _ in range(2))
    settings = {"lr": 0.02, "momentum": 0.9, "weight_decay": 0.1}
    optimizers = Muon(ours, **settings), torch.optim.Muon(theirs, **settings, adjust_lr_fn="match_rms_adamw")
    for _ in range(3):
        for a, b in zip(ours, theirs, strict=True):
            a.grad = torch.randn_like(a)
            b.grad = a.grad.clone()
        for optimizer in optimizers:
            optimizer.step()
    for a, b, w in zip(ours, theirs, start, strict=True):
        assert (a - b).norm() < 0.02 * (a - w).norm()  # torch's products are of bfloat16, 8 bits


@pytest.mark.parametrize("memory", [torch.contiguous_format, torch.channels_last])
def test_a_kernel_is_the_matrix_of_its_filters(memory):
    torch.manual_seed(0)
    kernel = torch.nn.Parameter(torch.randn(4, 2, 3, 3, dtype=torch.float64).to(memory_format=memory))
    other = torch.nn.Parameter(torch.randn(4, 2, 3, 3, dtype=torch.float64))  # of one shape: they go through the products together
    before, momentum = kernel.detach().clone(), torch.zeros(4, 18, dtype=torch.float64)
    optimizer = Muon([kernel, other], lr=0.1, momentum=0.8, weight_decay=0.5)
    expected = before.flatten(1)
    for _ in range(3):
        kernel.grad, other.grad = torch.randn_like(before), torch.randn_like(before)
        g = kernel.grad.flatten(1)
        momentum = 0.8 * momentum + 0.2 * g
        move = by_singular_values(0.8 * momentum + 0.2 * g)
        expected = expected * (1 - 0.1 * 0.5) - 0.1 * 0.2 * math.sqrt(18) * move
        optimizer.step()
        torch.testing.assert_close(kernel.detach().flatten(1), expected)
    assert kernel.is_contiguous(memory_format=memory)


def test_a_weight_without_a_gradient_stays():
    weight = torch.nn.Parameter(torch.ones(2, 3))
    Muon([weight], weight_decay=1.0).step()
    assert weight.tolist() == torch.ones(2, 3).tolist()


def test_a_vector_is_refused():
    with pytest.raises(ValueError, match=r"Muon: expected tensors of two or more axes, got \(3,\)\. Give vectors and biases to AdamW\."):
        Muon([torch.nn.Parameter(torch.ones(3))])
