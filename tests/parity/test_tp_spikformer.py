"""TP-Spikformer's scores against those of its released code."""

import json
import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from zoo.tokens.hooks import best_tokens
from zoo.tokens.tp_spikformer import TPCode, released_spatial, released_temporal

ROOT = Path(__file__).resolve().parents[2]
FOLDER = Path(os.environ.get("GOLDENS_DIR", ROOT / ".." / "shared" / "goldens")) / "spiking_transformers"
FILE = FOLDER / "tp_spikformer_scorers.json"
GOLDEN_FILES = {"spiking_transformers/tp_spikformer_scorers"}
pytestmark = [pytest.mark.golden, pytest.mark.skipif(not FILE.is_file(), reason=f"no {FILE}")]


def test_scores_and_choice():
    sidecar = json.loads(FILE.read_text(encoding="utf-8"))
    tensors = load_file(FILE.with_suffix(".safetensors"))
    assert set(tensors) == set(sidecar["tensors"])
    x = tensors["x"].double()
    compared = {"x", "temporal"}
    exact = {"rtol": 0.0, "atol": 1e-9}
    torch.testing.assert_close(released_temporal(x), tensors["temporal"], **exact)
    for kernel in (3, 7):
        torch.testing.assert_close(released_spatial(x, kernel), tensors[f"spatial{kernel}"], **exact)
        scores = TPCode(kernel)(x, None)
        kept = best_tokens(scores, sidecar["keep_side"] ** 2)
        assert torch.equal(kept, tensors[f"topk{kernel}"])  # best first
        compared |= {f"spatial{kernel}", f"topk{kernel}"}
    assert compared == set(tensors)
