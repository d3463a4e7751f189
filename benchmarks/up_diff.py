"""What UP-Diff costs: seconds and memory of a training step and of a sampling step, with random weights.

    python benchmarks/up_diff.py [--entry up_diff_tiny] [--batch 16] [--rounds 3] [--checkpointing] [--count]

A training step is forward, squared error, backward and AdamW on what is trained. A sampling step is a guided
evaluation, the network twice; a chain of 50 takes about 51 of them, and the decoder once. Memory is what
tensors take beside the weights: the peak of the profiler's allocation events. The large entries need about
10 GB of memory and minutes a step on a CPU: ``--entry up_diff_levir --batch 1 --rounds 1 --warm-up 0``.
``--count`` computes nothing: on the meta device it counts the operations of these steps as PyTorch's counter
does (two for a multiply-add), and the bytes of what training holds in memory.
"""

from __future__ import annotations

import argparse
import os
import warnings
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import _timing
import torch
from torch.utils.flop_counter import FlopCounterMode

import zoo

warnings.filterwarnings("ignore")


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--entry", default="up_diff_tiny")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--warm-up", type=int, default=1)
    parser.add_argument("--checkpointing", action="store_true", help="recompute activations in training")
    parser.add_argument("--count", action="store_true", help="count operations and bytes instead")
    args = _timing.arguments(parser)
    with torch.device("meta" if args.count else "cpu"):
        model: Any = zoo.create(args.entry)
    model.set_grad_checkpointing(args.checkpointing)
    if args.count:
        print(_timing.table(["", "amount"], counted(model, args.batch)))
        return
    cases = steps(model, args.batch)
    times = _timing.measure(cases, args.rounds, warm_up=args.warm_up)
    print(_timing.environment(args, "diffusers"))
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    total = sum(p.numel() for p in model.parameters())
    print(
        f"{args.entry}: {total / 1e6:.1f} M parameters, {trained / 1e6:.1f} M trained, batch {args.batch}\n"
    )
    rows = []
    for name, run in cases.items():
        most, _ = _timing.peak(run)
        seconds = sorted(times[name])[len(times[name]) // 2]
        rows.append([name, f"{seconds:.2f}", f"{most / 2**20:,.0f}"])
    print(_timing.table(["step", "seconds (CPU time)", "MiB beside the weights"], rows))


def steps(model: Any, batch: int) -> dict[str, Any]:
    """A training step and a guided sampling step on random images."""
    side = model.image_size
    before, after = torch.rand(2, batch, 3, side, side) * 2 - 1
    change = (torch.rand(batch, 1, side, side) > 0.5).float() * 2 - 1
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-5)
    t = torch.randint(model.schedule.steps, (batch,))

    def train() -> None:
        model.train()
        latents = model.encode(after)
        noise = torch.randn_like(latents)
        made = model(model.schedule.add_noise(latents, noise, t), t, before, change)
        optimizer.zero_grad()
        (made - noise).square().mean().backward()
        optimizer.step()

    @torch.no_grad()
    def sampling() -> None:
        model.eval()
        latents = torch.randn(batch, *model.latent_shape(side, side))
        for layout in (True, False):
            model.predict(latents, t, model.condition(before, change, layout=layout, caption=layout))

    return {"training": train, "sampling, guided": sampling}


def counted(model: Any, batch: int) -> list[list[str]]:
    """Rows of what a model on the meta device would compute and hold, in float32."""
    side = model.image_size
    with torch.device("meta"):
        before, change = torch.empty(batch, 3, side, side), torch.empty(batch, 1, side, side)
        latents, t = torch.empty(batch, *model.latent_shape(side, side)), torch.empty(batch, dtype=torch.long)
    own = {p.untyped_storage()._cdata for p in model.parameters()}
    kept: dict[int, tuple[torch.Tensor, int]] = {}  # with the tensor, so that no other takes its address

    def keep(x: torch.Tensor) -> torch.Tensor:
        storage = x.untyped_storage()
        if storage._cdata not in own:
            kept[storage._cdata] = (x, storage.nbytes())
        return x

    def network() -> None:
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda x: x):
            loss = model.train()(latents, t, before, change).square().mean()
        loss.backward()

    @torch.no_grad()
    def guided() -> None:
        for layout in (True, False):
            model.eval()(latents, t, before, change, layout=layout, caption=layout)

    work = {
        "encoding the image after": lambda: model.encode(before),
        "training, forward and backward": network,
        "sampling, guided": guided,
        "decoding": lambda: model.decode(latents),
    }
    rows = []
    for name, run in work.items():
        with FlopCounterMode(display=False) as counter:
            run()
        rows.append([name, f"{counter.get_total_flops() / 1e12:,.2f} TFLOP"])
    weights = sum(p.nbytes for p in model.parameters())
    trained = sum(p.nbytes for p in model.parameters() if p.requires_grad)
    held = {
        "weights": weights, "gradients, and AdamW's two moments": 3 * trained,
        "kept for the backward pass": sum(size for _, size in kept.values()),
    }  # fmt: skip
    return [*rows, *([name, f"{size / 2**30:.2f} GiB"] for name, size in held.items())]


if __name__ == "__main__":
    main()
