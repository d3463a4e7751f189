"""Whether SRP's fixed rehearsal is why more steps help it less than plain QCFS, on many networks.

    python benchmarks/srp_rehearsal.py [--networks 24] [--source RUN] [--images 200]

For each network the error of the logits against the source, by T and by the steps of the rehearsal: plain
QCFS (no rehearsal), the default of 4, longer ones, and one as long as the run (tau = T). The error is the
norm of the difference over the norm of the logits without their mean. ``--source`` takes the run of
``fulgurite fit --config qcfs/mnist5k`` and measures accuracy, too; without it the networks are random ones
with ReLU, whose error would vanish with T if nothing else were wrong.
"""

from __future__ import annotations

import argparse
from statistics import median
from typing import TYPE_CHECKING

import torch
from rich.progress import track
from torch import Tensor, nn

from conversion import convert
from datamodules import MNIST5kDataModule
from lightning_modules.source import Source

if TYPE_CHECKING:
    from collections.abc import Callable

STEPS = (1, 2, 4, 8, 16, 32, 64)
REHEARSALS: dict[str, Callable[[int], int]] = {
    "none": lambda T: 0,
    "tau = 4": lambda T: 4,
    "tau = 16": lambda T: 16,
    "tau = T": lambda T: T,
}


def random_network(seed: int) -> nn.Module:
    """A plain network of two to six layers of convolution, norm and ReLU, statistics set."""
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)

    def draw(low: int, high: int) -> int:
        return int(torch.randint(low, high + 1, (), generator=generator))

    channels, layers = 3, []
    for _ in range(draw(2, 6)):
        width = draw(4, 24)
        layers += [nn.Conv2d(channels, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU()]
        channels = width
    model = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, 10))
    with torch.no_grad():
        for _ in range(30):
            model.train()(torch.randn(32, 3, 12, 12, generator=generator))
    return model.eval()


@torch.no_grad()
def logits(source: nn.Module, calibration: Tensor, images: Tensor) -> dict[str, dict[int, Tensor]]:
    """Logits ``[B, K]`` by rehearsal and T."""
    found: dict[str, dict[int, Tensor]] = {}
    for label, tau in REHEARSALS.items():
        found[label] = {}
        fixed = label != "tau = T"
        for T in STEPS[-1:] if fixed else STEPS:
            snn = convert(source, "srp", T, calibration, tau=tau(T), progress=False)
            steps = torch.cat([snn(part, steps=True) for part in images.split(50)], dim=1)
            means = steps.cumsum(0) / torch.arange(1, T + 1).view(-1, 1, 1)
            found[label].update({t: means[t - 1] for t in (STEPS if fixed else (T,))})
    return found


def error(got: Tensor, want: Tensor) -> float:
    """Norm of the difference over the norm of the logits without their mean."""
    return float((got - want).norm() / (want - want.mean(1, keepdim=True)).norm())


def table(rows: dict[str, dict[int, float]]) -> str:
    """One line for each rehearsal."""
    head = "rehearsal   " + "".join(f"{'T = ' + str(T):>9}" for T in STEPS)
    body = [f"{label:12}" + "".join(f"{by_t[T]:9.4f}" for T in STEPS) for label, by_t in rows.items()]
    return "\n".join([head, *body])


def over_networks(networks: int) -> None:
    """Random networks: medians, and in how many plain QCFS is the closer one."""
    errors: dict[str, dict[int, list[float]]] = {label: {T: [] for T in STEPS} for label in REHEARSALS}
    for seed in track(range(networks), "networks"):
        source = random_network(seed)
        generator = torch.Generator().manual_seed(10_000 + seed)
        images = torch.randn(48, 3, 12, 12, generator=generator)
        want = source(images[32:])
        for label, by_t in logits(source, images[:32], images[32:]).items():
            for T, got in by_t.items():
                errors[label][T].append(error(got, want))
    print(f"median error of {networks} random networks")
    print(table({label: {T: median(v) for T, v in by_t.items()} for label, by_t in errors.items()}))
    print("networks in which plain QCFS is closer")
    plain = errors["none"]
    closer = {
        label: {T: float(sum(a < b for a, b in zip(plain[T], by_t[T], strict=True))) for T in STEPS}
        for label, by_t in errors.items()
        if label != "none"
    }
    print(table(closer))


def over_digits(run: str, count: int) -> None:
    """A trained network: errors and accuracies on test digits."""
    data = MNIST5kDataModule(batch_size=64, eval_batch_size=count, val=0.1)
    data.setup("test")
    images, labels = next(iter(data.test_dataloader()))
    source = Source(model=run).load()
    with torch.no_grad():
        want = source(images)
    print(f"accuracy of the source: {float((want.argmax(1) == labels).double().mean()):.4f}")
    found = logits(source, images[:8], images)
    print("error")
    print(table({k: {T: error(y, want) for T, y in by_t.items()} for k, by_t in found.items()}))
    right = {
        k: {T: float((y.argmax(1) == labels).double().mean()) for T, y in by_t.items()}
        for k, by_t in found.items()
    }
    print("accuracy")
    print(table(right))


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--networks", type=int, default=24)
    parser.add_argument("--source")
    parser.add_argument("--images", type=int, default=200)
    options = parser.parse_args()
    torch.set_num_threads(1)
    with torch.no_grad():
        if options.source:
            over_digits(options.source, options.images)
        else:
            over_networks(options.networks)


if __name__ == "__main__":
    main()
