"""Networks whose images see each other: each step apart, as the source treats a batch."""

import pytest
import torch
from torch import nn

import spiking
from conversion import convert

IMAGES = torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(1))


class Meeting(nn.Module):
    """Attention over the images of a batch, as `timm`'s CSATv2 has it, or their mean."""

    def __init__(self, attends):
        super().__init__()
        torch.manual_seed(0)
        self.stem, self.head, self.attends = nn.Conv2d(3, 6, 4, 4), nn.Linear(24, 5), attends
        self.second = nn.Linear(24, 24)

    def forward(self, x):
        x = self.second(self.stem(x).relu().flatten(1))
        y = (x @ x.transpose(-1, -2)).softmax(-1) @ x if self.attends else x - x.mean(0)
        return self.head(x + y)


@pytest.mark.parametrize("attends", [True, False])
def test_images_meet_at_each_step(attends):
    ann = Meeting(attends).eval()
    snn = convert(ann, "dcgs", 32, IMAGES, progress=False)
    with torch.no_grad():
        expected = ann(IMAGES)
        assert float((snn(IMAGES) - expected).norm() / expected.norm()) < 0.01
        alone = torch.cat([ann(x) for x in IMAGES.split(1)])
        assert float((alone - expected).norm() / expected.norm()) > 0.05
        steps = snn(IMAGES, steps=True)
        snn.chunk = 5
        torch.testing.assert_close(snn(IMAGES, steps=True), steps, rtol=1e-4, atol=1e-5)
    assert "between the images of a batch" in str(snn.report)
    rows = [r.ann_macs for r in spiking.profile_energy(snn, IMAGES).rows if "matmul" in r.name]
    assert rows == ([4 * 24, 4 * 24] if attends else [])
