"""MACs against torch's own counter, which counts a multiplication and an addition as two operations."""

from __future__ import annotations

import pytest
import timm
import torch
import torchvision
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

import spiking
import zoo
from tests.zoo.kinds import KINDS

# of the entries, the smallest of each family
FAST = {
    "ge2mst_nano", "lmht_resnet20", "lmht_spikformer_2_256_cifar10dvs", "ms_resnet18",
    "qcfs_resnet20", "qcfs_vgg16", "qkformer_nano", "sdt_nano", "sew_resnet18", "spikformer_nano",
    "spiking_cnn_nano", "spiking_resnet19", "spiking_vgg11", "spikingresformer_nano",
}  # fmt: skip
TORCHVISION = [
    "alexnet",
    "densenet121",
    "mobilenet_v3_small",
    "convnext_tiny",
    "swin_t",
    "vit_b_32",
    "maxvit_t",
    "shufflenet_v2_x0_5",
    "googlenet",
]
TIMM = [
    "mixer_s32_224",
    "pvt_v2_b0",
    "xcit_nano_12_p16_224",
    "dm_nfnet_f0",
    "poolformer_s12",
    "gmlp_ti16_224",
    "levit_128s",
    "mobilevit_xxs",
    "eva02_tiny_patch14_224",
    "volo_d1_224",
    "edgenext_xx_small",
    "hrnet_w18_small",
    "botnet26t_256",
    "halonet26t",
    "lambda_resnet26t",
    "fastvit_t8",
    "crossvit_tiny_240",
    "efficientvit_b0",
]
FAST |= {
    "alexnet", "swin_t", "vit_b_32", "pvt_v2_b0", "dm_nfnet_f0", "gmlp_ti16_224", "levit_128s",
    "halonet26t", "efficientvit_b0",
}  # fmt: skip


def cases(names):
    return [pytest.param(n, marks=() if n in FAST else pytest.mark.slow) for n in names]


def counted(model, *inputs):
    """MACs by torch's counter, and our report. Torch does not know fused attention on a CPU."""
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH):
        with FlopCounterMode(display=False) as flops:
            model(*inputs)
        with spiking.OperationCounter(model) as counter:
            model(*inputs)
    return flops.get_total_flops() / 2, counter.report()


@pytest.mark.filterwarnings("ignore:the firing rates of")
@pytest.mark.parametrize("name", cases(KINDS))
def test_entries_of_the_zoo(name):
    told = zoo.describe(name)
    with torch.device("meta"):
        model = told.build(time_steps=2) if told.spiking else told.build()
        images = torch.empty(1, *told.input_size)
    macs, report = counted(model.eval(), images)
    assert sum(row.dense_macs for row in report.rows) == macs
    if told.family == "delay_snn":  # it convolves over time and reads out once: no pass is one step
        readout = model.get_classifier().weight.numel()
        assert report.ann_macs == 2 * (told.macs - readout) + readout
    else:
        assert report.ann_macs == told.macs, "of one pass, which is counted with T = 1"


@pytest.mark.parametrize("name", cases([*TORCHVISION, *TIMM]))
def test_families_of_torchvision_and_timm(name):
    with torch.device("meta"):
        make = torchvision.models.get_model if name in TORCHVISION else timm.create_model
        model = make(name).eval()
        size = getattr(model, "default_cfg", {}).get("input_size", (3, 224, 224))
        images = torch.empty(1, *size)
    macs, report = counted(model, images)
    assert report.macs == report.ann_macs == macs
    assert report.sops == 0
