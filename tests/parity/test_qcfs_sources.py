"""The source networks against the authors' four codes: their checkpoints load, their logits come out."""

import pytest
import torch

from spiking.qcfs import QCFS
from tests.parity.goldens import over_files

pytestmark = pytest.mark.golden


@over_files("input", "ann_logits", "params.*", where=lambda g: "thresholds" in g.sidecar)
def test_logits(qcfs_source, golden):
    found = [m.v_threshold.item() for m in qcfs_source.modules() if isinstance(m, QCFS)]
    # the sidecar rounds to six digits behind the point
    assert found == pytest.approx(list(golden.sidecar["thresholds"].values()), abs=1e-6)
    with torch.no_grad():
        golden.close("ann_logits", qcfs_source(golden["input"]))
