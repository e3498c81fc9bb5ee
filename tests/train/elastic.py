"""A training that is restarted: `python elastic.py FOLDER KILL`. In its first life process 1 is killed after KILL steps (0: never)."""

import io
import os
import signal
import sys
from pathlib import Path

import torch

from twofold import nn
from twofold.data import files
from twofold.data.preparation import Preparation
from twofold.data.values import Images
from twofold.tasks.classify import Classification
from twofold.train.batches import PictureBatches
from twofold.train.joining import join
from twofold.train.replicas import averaging, copy_to_all

EPOCHS, KIND = 4, Preparation("L", 8, 8, (0.5,), (0.25,))


def main():
    folder, kill = Path(sys.argv[1]), int(sys.argv[2])
    with join() as world:
        torch.manual_seed(0)
        model = nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.ReLU(), nn.Dropout(0.5), nn.Linear(16, 5))
        optimizer = torch.optim.AdamW(model.parameters(), 3e-3, fused=True)
        world.reseed(0)
        epoch, kept = 0, folder / "checkpoint.pt"
        if world.agree(kept.exists()):  # before the replica is made, which gives all the first one's weights
            state = torch.load(kept)
            model.load_state_dict(state["model"])
            optimizer.load_state_dict(state["optimizer"])
            torch.set_rng_state(state["random"][world.process])
            epoch = state["epoch"]
        replica, task = copy_to_all(model, world), Classification(tuple("abcde"))
        x_BCHW = torch.randint(0, 256, (50, 1, 8, 8), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
        batches = PictureBatches(Images(x_BCHW, torch.arange(50) % 5, ("",) * 50), KIND, 10, 0, world.shard)
        steps = 0
        while epoch < EPOCHS:
            for step, batch in enumerate(batches.epoch(epoch)):
                optimizer.zero_grad()
                with averaging(replica):
                    (task.loss(replica, batch).loss * batches.share(step)).backward()
                optimizer.step()
                steps += 1
                if world.process == 1 and steps == kill and not world.restarts:
                    os.kill(os.getpid(), signal.SIGKILL)
            epoch += 1
            state = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "epoch": epoch}
            state["random"] = world.collect(torch.get_rng_state())
            if world.first:
                buffer = io.BytesIO()
                torch.save(state, buffer)
                files.write(kept, buffer.getvalue())
        if world.first:
            torch.save({"weights": model.state_dict(), "restarts": world.restarts, "steps": steps}, folder / "end.pt")


if __name__ == "__main__":
    main()
