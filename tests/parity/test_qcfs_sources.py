"""The source networks against the authors' four codes: their checkpoints load, their logits come out."""

import pytest
import torch

from spiking.qcfs import QCFS

pytestmark = pytest.mark.golden
# Claimed as GOLDEN_FILES by test_conversion_cnn_networks.py, which compares what the networks become.
VGG = ("qcfs_net_vgg", "srp_net_vgg", "cos_net_vgg", "parallel_net_vgg_lossless")
RESNET = ("qcfs_net_resnet", "srp_net_resnet", "cos_net_resnet", "parallel_net_resnet_calibrated")


@pytest.mark.parametrize("file", [*VGG, *RESNET])
def test_logits(qcfs_source, file):
    model, sidecar, golden = qcfs_source(file)
    found = [m.v_threshold.item() for m in model.modules() if isinstance(m, QCFS)]
    assert found == pytest.approx(list(sidecar["thresholds"].values()), abs=1e-6)
    with torch.no_grad():
        logits = model(golden["input"])
    torch.testing.assert_close(logits, golden["ann_logits"], rtol=0, atol=sidecar["tolerance"])
