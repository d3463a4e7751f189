"""Put the best checkpoint of a finished run into the package, with all that the run wrote down about it.

After ``fulgurite fit --config configs/stbp/mnist5k.yaml``: ``python benchmarks/ship_weights.py
runs/stbp-mnist5k mnist5k_t4``.
"""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path

import zoo
from cli.run.package import export_run

ROOT = Path(__file__).resolve().parents[1]
LARGEST = 1_000_000  # bytes; larger weights belong on a hub


def main() -> None:
    """Export the run under ``zoo/weights``, without its figures, and load it back."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("run", type=Path, help="the run's folder, with report.json")
    parser.add_argument("tag", help="what the weights are called, NAME.TAG")
    parser.add_argument("--limits", help="a sentence for the card: what users must know beyond what it says")
    args = parser.parse_args()
    report = json.loads((args.run / "report.json").read_text(encoding="utf-8"))
    target = ROOT / "zoo" / "weights" / f"{report['model']}.{args.tag}"
    folder = export_run(args.run, target, licence="Apache-2.0", limits=args.limits, figures=False)
    size = (folder / "model.safetensors").stat().st_size
    if size > LARGEST:
        shutil.rmtree(folder)
        raise SystemExit(f"{target} would hold {size:,} bytes; only weights under {LARGEST:,} ship")
    zoo.load(f"{report['model']}.{args.tag}", pretrained=True)
    print(f"{folder}: {size:,} bytes, test accuracy {report['metrics']['test/acc1']:.2%}")


if __name__ == "__main__":
    main()
