"""A table of vectors.     V tokens, D features, x: token numbers with any axes

    forward    y[...,d] = W[x[...],d]
    backward   dW[v,d] = sum of dy[...,d] over the places where x = v; 0 for v = padding

It is the linear map of one-hot rows: y = onehot(x) W, hence dW = onehot(x)' dy; the zeros are never multiplied.

Bengio et al., "A neural probabilistic language model", Journal of Machine Learning Research 3, 2003, section 2 (the matrix C)
"""

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from twofold.layers.differentiable import differentiable
from twofold.layers.expect import expect_positive, expect_tensor, first_outside, sentence
from twofold.layers.routes import Routed, traced


class Saved(NamedTuple):
    """What backward needs."""

    x: Tensor
    tokens: int
    padding: int | None


def forward(weight_VD: Tensor, x: Tensor, padding: int | None = None) -> tuple[Tensor, Saved]:
    """y[..., D]; the row `padding` is read like any other, it only learns nothing."""
    return weight_VD[x], Saved(x, weight_VD.shape[0], padding)


def backward(dy: Tensor, saved: Saved) -> Tensor:
    """dweight_VD"""
    x_R, dy_RD = saved.x.flatten(), dy.reshape(saved.x.numel(), dy.shape[-1])
    if saved.padding is not None:
        dy_RD = torch.where((x_R == saved.padding)[:, None], 0, dy_RD)
    return dy.new_zeros(saved.tokens, dy.shape[-1]).index_add(0, x_R, dy_RD)


def vendor(weight_VD: Tensor, x: Tensor, padding: int | None = None) -> Tensor:
    """PyTorch's own."""
    return F.embedding(x, weight_VD, padding)


embedding = differentiable(forward, backward, vendor=vendor)


class Embedding(Routed, nn.Embedding):
    """One row of the table for every token number, int32 or int64, of any shape; torch.nn.Embedding with routes and clear errors.

    padding_idx: a row that starts as zeros and gets no gradient.
    max_norm, scale_grad_by_freq, sparse: as in torch, where max_norm rescales rows of the weight in place. Only PyTorch's
    operator has these three, so a layer that uses one takes the route `vendor` whatever route is asked for.
    Raises ValueError for sizes below 1, a padding_idx that is no row, input that holds no whole numbers, and a token number
    outside 0..V-1. The numbers are not looked at while a compiler or an exporter watches.

    >>> layer = Embedding.from_pretrained(torch.tensor([[0.0, 1.0], [2.0, 3.0]]))
    >>> layer(torch.tensor([1, 1, 0])).tolist()
    [[2.0, 3.0], [2.0, 3.0], [0.0, 1.0]]
    """

    def __init__(  # type: ignore[no-untyped-def]
        self,
        num_embeddings: int,
        embedding_dim: int,
        padding_idx: int | None = None,
        max_norm: float | None = None,
        norm_type: float = 2.0,
        scale_grad_by_freq: bool = False,
        sparse: bool = False,
        _weight: Tensor | None = None,
        _freeze: bool = False,
        device=None,
        dtype=None,
    ) -> None:
        expect_positive("Embedding", num_embeddings=num_embeddings, embedding_dim=embedding_dim)
        V = num_embeddings
        if padding_idx is not None and not -V <= padding_idx < V:
            raise ValueError(f"Embedding: expected padding_idx to be one of the {V} rows, {-V}..{V - 1}, got {padding_idx}.")
        if _weight is not None and tuple(_weight.shape) != (V, embedding_dim):
            raise ValueError(sentence("Embedding weight", f"(V={V}, D={embedding_dim})", str(tuple(_weight.shape)), "", ""))
        super().__init__(
            num_embeddings,
            embedding_dim,
            padding_idx,
            max_norm,
            norm_type,
            scale_grad_by_freq,
            sparse,
            _weight,
            _freeze,
            device,
            dtype,
        )

    @classmethod
    def from_pretrained(cls, embeddings: Tensor, *options: Any, **named: Any) -> "Embedding":
        """A layer of the given rows, frozen unless freeze=False; options as in torch.nn.Embedding.from_pretrained."""
        expect_tensor("Embedding weight", embeddings)
        if embeddings.dim() != 2:
            raise ValueError(sentence("Embedding weight", "(V, D)", str(tuple(embeddings.shape)), f"{embeddings.dim()} axes, not 2", ""))
        layer: Embedding = super().from_pretrained(embeddings, *options, **named)
        return layer

    def forward(self, input: Tensor) -> Tensor:
        expect_tensor("Embedding input", input)
        if input.dtype not in (torch.int64, torch.int32):
            self._refuse_dtype(input)
        if not traced():
            outside = first_outside(input, self.num_embeddings)
            if outside is not None:
                self._refuse_number(*outside)
        if self.max_norm is not None or self.scale_grad_by_freq or self.sparse:
            self.took("vendor")
            return super().forward(input)
        return self.run(embedding, self.weight, input, self.padding_idx)

    def _refuse_dtype(self, input: Tensor) -> None:
        got = str(input.dtype).removeprefix("torch.")
        cause = "Convert it with x.long()."
        if input.is_floating_point():
            cause = "Measurements? They need a Linear, not a table. Numbers of tokens that became floats? x.long()."
        raise ValueError(sentence("Embedding input", "token numbers of type int64 or int32", got, "", cause))

    def _refuse_number(self, number: int, where: str) -> None:
        cause = f"Build the layer with num_embeddings of at least {number + 1}, or give unknown tokens one number of their own."
        if number < 0:
            cause = "A mark for padding? Give it a number of its own and name that in padding_idx."
        raise ValueError(sentence("Embedding input", f"token numbers 0..{self.num_embeddings - 1}", f"{number}{where}", "", cause))
