"""How near converted networks come to their sources, on one model of each of timm's modules.

    python benchmarks/family_table.py [MODULE ...] [--table FILE] [--again] [--list]

Weights are random, as timm draws them with seed 0, and so are the images, normal noise: the table says how
exact the code is, and nothing about accuracy. Statistics of batch norms are those of 16 images, of which the
first four calibrate DCGS with its default settings; four others are compared. Each finished module is a line
of JSON in the table at once; called again, the script skips modules that are there.

The distance of logits is the norm of the difference over the norm of the source's logits, each image's mean
taken off, which softmax does not see. How the source itself answers to its image rounded to bfloat16 stands
beside it: nothing can be nearer than a network's own condition lets rounding be.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import timm
import torch
from rich.progress import track
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from conversion import convert

if TYPE_CHECKING:
    from torch import Tensor

ROOT = Path(__file__).resolve().parents[1]
STEPS = (1, 2, 4, 8, 16)
STATISTICS, CALIBRATION, COMPARED = 16, 4, 4  # images
CLASSES = 10
SMALL = {"img_size": 64}
# model, its arguments, and size of the image, by module
MODULES: dict[str, tuple[str, dict[str, Any], int]] = {
    "beit": ("beit_base_patch16_224", {**SMALL, "depth": 3}, 64),
    "byoanet": ("eca_botnext26ts_256", {}, 256),
    "byobnet": ("mobileone_s1", {}, 96),
    "cait": ("cait_xxs24_224", SMALL, 64),
    "coat": ("coat_lite_tiny", {}, 224),
    "convit": ("convit_tiny", {}, 224),
    "convmixer": ("convmixer_768_32", {}, 64),
    "convnext": ("convnext_atto", {}, 96),
    "cpubone": ("cpubone_nano", {}, 96),
    "crossvit": ("crossvit_tiny_240", {}, 240),
    "csatv2": ("csatv2", {}, 256),
    "cspnet": ("cs3darknet_focus_s", {}, 96),
    "cspnext": ("cspnext_tiny", {}, 96),
    "davit": ("davit_tiny", {}, 96),
    "deepseek_vit": ("deepseek_vit_412m", {"depth": 2}, 98),
    "deit": ("deit_tiny_patch16_224", SMALL, 64),
    "densenet": ("densenet121", {}, 96),
    "dla": ("dla46x_c", {}, 96),
    "dpn": ("dpn48b", {}, 96),
    "edgenext": ("edgenext_xx_small", {}, 96),
    "efficientformer": ("efficientformer_l1", {}, 224),
    "efficientformer_v2": ("efficientformerv2_s0", {}, 224),
    "efficientnet": ("mnasnet_small", {}, 96),
    "efficientvim": ("efficientvim_m1", {}, 224),
    "efficientvit_mit": ("efficientvit_b0", {}, 96),
    "efficientvit_msra": ("efficientvit_m0", {}, 224),
    "eva": ("eva02_tiny_patch14_224", {"img_size": 56}, 56),
    "fasternet": ("fasternet_t0", {}, 96),
    "fastvit": ("fastvit_t8", {}, 96),
    "focalnet": ("focalnet_tiny_srf", {}, 96),
    "gcvit": ("gcvit_xxtiny", {}, 224),
    "gemma4_vit": ("gemma4_vit_167m", {"depth": 2}, 96),
    "ghostnet": ("ghostnet_050", {}, 96),
    "hardcorenas": ("hardcorenas_b", {}, 96),
    "hgnet": ("hgnetv2_b0", {}, 96),
    "hiera": ("hiera_tiny_224", {}, 224),
    "hieradet_sam2": ("sam2_hiera_tiny", {}, 128),
    "hrnet": ("hrnet_w18_small", {}, 96),
    "iformer": ("iformer_t", {}, 96),
    "inception_next": ("inception_next_atto", {}, 96),
    "inception_resnet_v2": ("inception_resnet_v2", {}, 139),
    "inception_v3": ("inception_v3", {}, 139),
    "inception_v4": ("inception_v4", {}, 139),
    "lcnetv2": ("lcnetv2_small", {}, 96),
    "levit": ("levit_128s", {}, 224),
    "lowformer": ("lowformer_b0", {}, 96),
    "mambaout": ("test_mambaout", {}, 96),
    "maxxvit": ("test_maxvit", {}, 160),
    "metaformer": ("poolformerv2_s12", {}, 96),
    "mlp_mixer": ("mixer_s32_224", SMALL, 64),
    "mobilenetv3": ("mobilenetv3_small_050", {}, 96),
    "mobilenetv5": ("mobilenetv5_base", {}, 128),
    "mobilevit": ("mobilevit_xxs", {}, 96),
    "mvitv2": ("mvitv2_tiny", {}, 64),
    "naflexvit": ("naflexvit_base_patch16_gap", {"depth": 2}, 96),
    "nasnet": ("nasnetalarge", {}, 96),
    "nest": ("nest_tiny", SMALL, 64),
    "nextvit": ("nextvit_small", {}, 96),
    "nfnet": ("nf_regnet_b0", {}, 96),
    "pit": ("pit_ti_224", {}, 224),
    "pnasnet": ("pnasnet5large", {}, 96),
    "pvt_v2": ("pvt_v2_b0", {}, 64),
    "qwen3_vit": ("qwen3_vit_88m", {"depth": 2}, 128),
    "rdnet": ("rdnet_tiny", {}, 64),
    "regnet": ("regnety_002", {}, 96),
    "repghost": ("repghostnet_050", {}, 96),
    "repvit": ("repvit_m1", {}, 96),
    "res2net": ("res2next50", {}, 96),
    "resnest": ("resnest14d", {}, 96),
    "resnet": ("resnet18", {}, 96),
    "resnetv2": ("resnetv2_18", {}, 96),
    "rexnet": ("rexnet_100", {}, 96),
    "selecsls": ("selecsls42", {}, 96),
    "senet": ("legacy_seresnet18", {}, 96),
    "sequencer": ("sequencer2d_s", {}, 224),
    "shvit": ("shvit_s1", {}, 128),
    "sknet": ("skresnet18", {}, 96),
    "starnet": ("starnet_s050", {}, 96),
    "swiftformer": ("swiftformer_xs", {}, 224),
    "swin_transformer": ("swin_tiny_patch4_window7_224", {"img_size": 56}, 56),
    "swin_transformer_v2": ("swinv2_tiny_window8_256", SMALL, 64),
    "swin_transformer_v2_cr": ("swinv2_cr_tiny_224", {"img_size": 112}, 112),
    "tiny_vit": ("tiny_vit_5m_224", {}, 224),
    "tnt": ("tnt_s_legacy_patch16_224", SMALL, 64),
    "tresnet": ("tresnet_m", {}, 96),
    "twins": ("twins_svt_small", {}, 64),
    "vgg": ("vgg11_bn", {}, 64),
    "visformer": ("visformer_tiny", {}, 224),
    "vision_transformer": ("vit_tiny_patch16_224", SMALL, 64),
    "vision_transformer_hybrid": ("vit_tiny_r_s16_p8_224", {"img_size": 96}, 96),
    "vision_transformer_relpos": ("test_vit_relpos", {}, 160),
    "vision_transformer_sam": ("samvit_base_patch16_224", {"depth": 3}, 224),
    "vitamin": ("vitamin_small_224", SMALL, 64),
    "volo": ("volo_d1_224", {"img_size": 96}, 96),
    "vovnet": ("ese_vovnet19b_slim_dw", {}, 96),
    "xception": ("legacy_xception", {}, 96),
    "xception_aligned": ("xception41p", {}, 96),
    "xcit": ("xcit_nano_12_p16_224", {}, 64),
}


def source(module: str) -> tuple[nn.Module, Tensor, Tensor]:
    """The model of a module with random weights, images for its calibration, and others."""
    name, arguments, pixels = MODULES[module]
    torch.manual_seed(0)
    model: Any = timm.create_model(name, num_classes=CLASSES, **arguments).eval()
    for head in model.get_classifier().modules():
        if isinstance(head, nn.Linear) and not bool(head.weight.any()):  # MLP-Mixer starts from zero logits
            nn.init.trunc_normal_(head.weight, std=0.02)
    generator = torch.Generator().manual_seed(1)
    images = torch.randn(STATISTICS + COMPARED, 3, pixels, pixels, generator=generator)
    set_statistics(model, images[:STATISTICS])
    return model, images[:CALIBRATION], images[STATISTICS:]


@torch.no_grad()
def set_statistics(model: nn.Module, images: Tensor) -> None:
    """Batch norms as one pass over ``images`` leaves them; untrained ones let signals vanish or explode."""
    norms = [m for m in model.modules() if isinstance(m, _BatchNorm) and m.track_running_stats]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.train()
        norm.momentum = 1.0
    if norms:
        model(images)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.eval()
        norm.momentum = momentum


def distance(logits: Tensor, expected: Tensor) -> float:
    """See above; ``[B, K]``."""
    logits, expected = logits.double(), expected.double()
    apart = logits - expected
    apart, spread = (x - x.mean(1, keepdim=True) for x in (apart, expected))
    return float(apart.norm() / spread.norm())


@torch.no_grad()
def row(module: str) -> dict[str, Any]:
    """What the table has of a module; what stopped its conversion instead, if something did."""
    name, _, pixels = MODULES[module]
    found: dict[str, Any] = {"module": module, "model": name, "pixels": pixels}
    began = time.perf_counter()
    model, calibration, images = source(module)
    expected = model(images)
    found["rounding"] = distance(model(images.bfloat16().float()), expected)
    try:
        snn = convert(model, "dcgs", max(STEPS), calibration, progress=False)
    except (RuntimeError, ValueError) as error:
        return {**found, "refused": str(error), "date": time.strftime("%Y-%m-%d")}
    sums = torch.cat([snn(x, steps=True).cumsum(0) for x in images.split(1)], dim=1)  # little memory
    return {
        **found,
        "distance": {t: distance(sums[t - 1] / t, expected) for t in STEPS},
        "layers_of_neurons": len(snn.report.rows),
        "not_measured": [r.name for r in snn.report.rows if r.fallback],
        "self_test": snn.report.self_test,
        "seconds": round(time.perf_counter() - began, 1),
        "date": time.strftime("%Y-%m-%d"),
    }


def main() -> None:
    """Do what is missing from the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("modules", nargs="*", metavar="MODULE", help="some of timm's; --list shows them")
    parser.add_argument("--table", type=Path, default=ROOT / "benchmarks" / "family_table.jsonl")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--again", action="store_true", help="replace the rows of these modules")
    parser.add_argument("--list", action="store_true", help="say what would be computed, and stop")
    args = parser.parse_args()
    for name in args.modules:
        if name not in MODULES:
            parser.error(f"unknown module {name!r}; known: {', '.join(MODULES)}")
    torch.set_num_threads(args.threads)
    done = read(args.table)
    todo = [m for m in args.modules or MODULES if args.again or m not in done]
    if args.list:
        print("\n".join(todo))
        return
    for module in track(todo, "modules"):
        write(args.table, {**read(args.table), module: row(module)})
        gc.collect()


def read(table: Path) -> dict[str, dict[str, Any]]:
    """The rows by module."""
    lines = table.read_text().splitlines() if table.exists() else []
    return {found["module"]: found for found in map(json.loads, lines)}


def write(table: Path, rows: dict[str, dict[str, Any]]) -> None:
    """The whole table in timm's order, whatever happens meanwhile."""
    whole = table.with_suffix(".part")
    whole.write_text("".join(json.dumps(rows[m]) + "\n" for m in MODULES if m in rows))
    whole.replace(table)


if __name__ == "__main__":
    main()
