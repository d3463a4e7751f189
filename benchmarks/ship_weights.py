"""Put the best checkpoint of a finished run into the package, with its measured accuracy.

After ``fulgurite fit --config configs/stbp/mnist5k.yaml``: ``python benchmarks/ship_weights.py
runs/stbp-mnist5k configs/stbp/mnist5k.yaml mnist5k_t4 "MNIST, 5,000 digits"``.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import zoo

ROOT = Path(__file__).resolve().parents[1]
RECORDED = ("test/acc1", "test/firing_rate", "test/sops", "test/energy_mj", "test/ann_energy_mj")
LARGEST = 1_000_000  # bytes; larger weights belong on a hub


def main() -> None:
    """Read the run's report, save its network under ``zoo/weights``, and load it back."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("run", type=Path, help="the run's folder, with report.json")
    parser.add_argument("config", type=Path, help="the configuration that made it")
    parser.add_argument("tag", help="what the weights are called, NAME.TAG")
    parser.add_argument("dataset", help="what they were trained on")
    args = parser.parse_args()
    report = json.loads((args.run / "report.json").read_text(encoding="utf-8"))
    model = zoo.load(f"local-dir:{args.run / 'checkpoints' / 'best.ckpt'}")
    folder = zoo.save(
        model,
        ROOT / "zoo" / "weights" / f"{report['model']}.{args.tag}",
        metrics={name: round(report["metrics"][name], 6) for name in RECORDED if name in report["metrics"]},
        dataset=args.dataset,
        command=f"fulgurite fit --config {args.config}",
        seed=report["seed"],
        licence="Apache-2.0",
    )
    size = (folder / "model.safetensors").stat().st_size
    if size > LARGEST:
        raise SystemExit(f"{folder} holds {size:,} bytes; only weights under {LARGEST:,} ship")
    zoo.load(f"{report['model']}.{args.tag}", pretrained=True)
    print(f"{folder}: {size:,} bytes, test accuracy {report['metrics']['test/acc1']:.2%}")


if __name__ == "__main__":
    main()
