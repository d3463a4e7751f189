"""TP-Spikformer's scores against those of its released code."""

import pytest
import torch

from tests.parity.goldens import over_files
from zoo.tokens.gather import best_tokens
from zoo.tokens.tp_spikformer import TPCode, released_spatial, released_temporal

pytestmark = pytest.mark.golden


@over_files("x", "temporal", "spatial*", "topk*")
def test_scores_and_choice(golden):
    x = golden["x"].double()
    exact = {"rtol": 0.0, "atol": 1e-9}
    golden.close("temporal", released_temporal(x), **exact)
    for key in sorted(k for k in golden.keys if k.startswith("spatial")):
        kernel = int(key.removeprefix("spatial"))
        golden.close(key, released_spatial(x, kernel), **exact)
        kept = best_tokens(TPCode(kernel)(x, None), golden.sidecar["keep_side"] ** 2)
        assert torch.equal(kept, golden[f"topk{kernel}"])  # best first
    golden.everything_was_compared()
