"""Part (b): images a second and peak memory of a training step: ours, SpikingJelly, the ReLU network."""

from __future__ import annotations

import statistics
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import _timing
import adapter
import torch
import training_step
from torch import Tensor, nn
from torch.nn import functional as F
from training_memory import without_neurons

import spiking
import zoo

if TYPE_CHECKING:
    from collections.abc import Callable

    from gpu_parts.work import Work

CLASSES = 10


@dataclass(frozen=True)
class Task:
    """A network and its data.

    Attributes:
        make: builds it on the CPU; gives logits ``[B, K]`` of images.
        batch: images of a step.
        side: height and width of an image.
    """

    make: Callable[[], nn.Module]
    batch: int
    side: int


class Repeats(nn.Module):
    """A network of time steps as one of images: the T steps of a still image, averaged."""

    def __init__(self, net: nn.Module, steps: int, reset: Callable[[nn.Module], None] | None = None) -> None:
        super().__init__()
        self.net, self.steps, self.reset = net, steps, reset

    def forward(self, x: Tensor) -> Tensor:
        """``[B, C, H, W]`` -> ``[B, K]``."""
        if self.reset is not None:
            self.reset(self.net)
        return self.net(x.unsqueeze(0).repeat(self.steps, 1, 1, 1, 1)).mean(0)


class SpikesAsBits(nn.Module):
    """A network whose spikes are kept as bits for the backward pass."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor) -> Tensor:
        """``[B, C, H, W]`` -> ``[B, K]``."""
        with spiking.compress_spikes():
            return self.net(x)


class Vgg(nn.Module):
    """The small VGG of `training_step.py`, in the form of the others."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor) -> Tensor:
        """``[B, C, H, W]`` -> ``[B, K]``."""
        return self.net(x, training_step.STEPS)


def spikingjelly_sew() -> nn.Module:
    """SEW-ResNet18 of SpikingJelly, multi-step."""
    from spikingjelly.activation_based import functional, neuron, surrogate
    from spikingjelly.activation_based.model import sew_resnet

    settings = {"surrogate_function": surrogate.ATan(), "detach_reset": True, "num_classes": CLASSES}
    net = sew_resnet.sew_resnet18(cnf="ADD", spiking_neuron=neuron.IFNode, **settings)
    functional.set_step_mode(net, "m")
    return Repeats(net, 4, functional.reset_net)


def tasks(tiny: bool, compiled: bool) -> dict[str, Task]:
    """What is measured, in the order of its worth."""
    side, batch, half, large = (32, 2, 2, 1) if tiny else (224, 112, 56, 512)
    sew: dict[str, Any] = {"num_classes": CLASSES, "time_steps": 4}
    resformer: dict[str, Any] = {"num_classes": CLASSES, "time_steps": 4}
    if tiny:
        sew |= {"layers": (1, 1), "planes": (4, 8)}
        resformer |= {"planes": (8, 16, 16), "num_heads": (1, 2, 2), "group_size": 8, "depths": (1, 1, 1)}

    def ours(name: str, arguments: dict[str, Any]) -> Callable[[], nn.Module]:
        return lambda: zoo.create(name, **arguments)

    make_sew, make_resformer = ours("sew_resnet18", sew), ours("spikingresformer_s", resformer)
    found = {
        "SEW-ResNet18, ours": Task(make_sew, batch, side),
        "SEW-ResNet18, ReLU": Task(lambda: without_neurons(make_sew()), batch, side),
        "SpikingResformer-S, ours": Task(make_resformer, half, side),
        "SpikingResformer-S, ReLU": Task(lambda: without_neurons(make_resformer()), half, side),
        "small VGG, ours": Task(lambda: Vgg(adapter.SmallVGG(training_step.Seed())), large, 32),
        "small VGG, ReLU": Task(lambda: Vgg(training_step.WithoutNeurons(True)), large, 32),
    }
    if not compiled:
        found["SEW-ResNet18, ours, spikes as bits"] = Task(lambda: SpikesAsBits(make_sew()), batch, side)
    if _timing.installed("spikingjelly"):
        found["SEW-ResNet18, SpikingJelly"] = Task(spikingjelly_sew, batch, side)
        found["small VGG, SpikingJelly"] = Task(lambda: Vgg(training_step.SpikingJelly()), large, 32)
    return found


def measure(work: Work, task: Task, compiled: bool) -> dict[str, Any]:
    """Median images a second and peak memory; the batch is halved where it does not fit."""
    batch = task.batch
    while True:
        try:
            return _measure(work, task, batch, compiled)
        except torch.OutOfMemoryError:
            if batch < 8:
                raise
            batch //= 2
            torch.cuda.empty_cache()


def _measure(work: Work, task: Task, batch: int, compiled: bool) -> dict[str, Any]:
    torch.manual_seed(0)
    torch._dynamo.reset()
    net = task.make().to(work.device, memory_format=torch.channels_last).train()
    called = torch.compile(net, backend="eager" if work.tiny else "inductor") if compiled else net
    x = torch.rand(batch, 3, task.side, task.side, device=work.device)
    x = x.to(memory_format=torch.channels_last)
    y = torch.randint(0, CLASSES, (batch,), device=work.device)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.01, momentum=0.9)

    def step() -> None:
        optimizer.zero_grad()
        with torch.autocast(work.device, torch.bfloat16):
            logits = called(x)
        F.cross_entropy(logits.float(), y).backward()
        optimizer.step()

    step()  # gradients and momenta are there, kernels are compiled
    work.wait()
    if work.device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    times = work.timed(step, seconds=4.0, warm_up=1 if work.tiny else 3, at_least=1 if work.tiny else 5)
    values = {"images/s": round(batch / statistics.median(times), 1), "batch": batch, "steps": len(times)}
    if work.device == "cuda":
        values["peak GiB"] = round(torch.cuda.max_memory_allocated() / 2**30, 2)
    return values


def run(work: Work) -> None:
    """Eager rows first, since compiling takes a minute a network."""
    for compiled in (False, True):
        found = tasks(work.tiny, compiled)
        if compiled and work.tiny:  # half a minute each
            found = dict(list(found.items())[:1])
        for name, task in found.items():
            label = f"{name}, {'compiled' if compiled else 'eager'}"
            needs = 0.0 if work.tiny else 30.0 if compiled else 8.0
            work.case(label, lambda task=task, compiled=compiled: measure(work, task, compiled), needs)
