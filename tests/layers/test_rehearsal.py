"""A rehearsal computes as training does, draws nothing, and leaves no trace."""

import pytest
import torch
from torch import nn

from twofold.layers.rehearsal import rehearsing


def test_normalisation_acts_by_the_batch_dropout_does_not_and_all_is_put_back():
    torch.manual_seed(0)
    norm, frozen = nn.BatchNorm1d(4), nn.BatchNorm1d(4)
    model = nn.Sequential(norm, nn.Dropout(0.5), nn.Sequential(frozen))
    frozen.eval()
    x, before = 5 + 3 * torch.randn(64, 4), {name: kept.clone() for name, kept in model.state_dict().items()}
    with pytest.raises(KeyError), rehearsing(model):
        y = model(x)
        raise KeyError
    assert y.mean(0).abs().max() < 1e-5 and torch.allclose(y.std(0), torch.ones(4), atol=0.02)
    assert all(torch.equal(kept, before[name]) for name, kept in model.state_dict().items())
    assert [part.training for part in model.modules()] == [True, True, True, True, False]
