"""Source networks told from the authors' state dicts."""

from __future__ import annotations

import math
import re
from collections import Counter


def described(state):
    """Entry of the zoo and arguments, told from names and shapes of the authors' state dict."""
    if any(key.startswith("classifier.") for key in state):
        stages = sorted({key.split(".")[0] for key in state if key.startswith("layer")})
        convolutions = {k: v for k, v in state.items() if v.dim() == 4}
        plan = [[len(v) for k, v in convolutions.items() if k.startswith(f"{s}.")] for s in stages]
        linear = [v for k, v in by_number(state) if k.startswith("classifier.") and v.dim() == 2]
        return "qcfs_vgg16", {
            "plan": plan,
            "hidden": len(linear[0]),
            "num_classes": len(linear[-1]),
            "pool_size": math.isqrt(linear[0].shape[1] // plan[-1][-1]),
            "in_chans": next(v for k, v in by_number(convolutions)).shape[1],
        }
    blocks = {tuple(key.split(".")[:2]) for key in state if re.match(r"conv\d+_x\.", key)}
    layers = Counter(stage for stage, _ in blocks)
    stages = sorted(layers, key=numbers)
    return "qcfs_resnet20", {
        "layers": [layers[stage] for stage in stages],
        "planes": [len(state[f"{stage}.0.residual_function.0.weight"]) for stage in stages],
        "num_classes": len(state["fc.bias"]),
        "in_chans": state["conv1.0.weight"].shape[1],
    }


def by_number(state):
    """Entries in the order of the numbers in their names."""
    return sorted(state.items(), key=lambda item: numbers(item[0]))


def numbers(text):
    return [int(n) for n in re.findall(r"\d+", text)]
