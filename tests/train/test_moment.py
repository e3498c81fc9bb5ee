"""The moment before a step comes back: buffers, random states."""

import math

import torch

from twofold import nn
from twofold.train.moment import Moment


def test_buffers_and_random_states_are_as_they_were_at_the_last_take():
    net = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Dropout(0.5))
    moment, x = Moment(net), torch.randn(3, 1, 5, 5)
    for _ in range(2):  # the first take makes copies, the others fill them
        net(x)
        moment.take()
        before = {name: value.clone() for name, value in net.state_dict().items()}
        first = net(x)
        net(x * math.nan)
        net[1].num_batches_tracked = torch.tensor(99)  # another tensor in the old one's place
        moment.put_back()
        assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
        assert torch.equal(net(x), first)
