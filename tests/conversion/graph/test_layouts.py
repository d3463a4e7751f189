"""Where the batch lies: followed through a graph, and checked by what one broken image reaches."""

import pytest
import torch
from torch import nn

from conversion import ConversionError
from conversion.graph.export import export
from conversion.network.layout import Layout

PLACES = {
    "alone": (Layout(), (6, 5, 4)),
    "in the middle": (Layout(1), (5, 6, 4)),
    "around heads": (Layout(0), (12, 5)),
    "inside tokens": (Layout(0, 5), (30, 4)),
    "inside tokens, around heads": (Layout(1, 5), (4, 60, 2)),
}


@pytest.mark.parametrize("place", PLACES)
def test_unfold_puts_time_in_front_and_fold_back(place):
    layout, shape = PLACES[place]
    steps, batch = 3, 2  # 6 = T * B
    axis, outer = layout
    inner = shape[axis] // outer // (steps * batch)
    ids = torch.arange(steps).repeat_interleave(batch * inner).repeat(outer)  # the step of each position
    x = torch.rand(shape) + ids.view(-1, *(1,) * (len(shape) - axis - 1))
    unfolded = layout.unfold(x, steps)
    assert unfolded.shape[:2] == (steps, batch * inner)
    for step in range(steps):
        assert torch.equal(unfolded[step].floor().unique(), torch.tensor([float(step)]))
    assert torch.equal(layout.fold(unfolded), x)


class Wandering(nn.Module):
    """Puts the batch into every place that an axis offers."""

    def __init__(self):
        super().__init__()
        self.stem, self.head = nn.Conv2d(3, 8, 4, 4), nn.Linear(8, 5)

    def forward(self, x):
        n = x.shape[0]
        x = self.stem(x).flatten(2)  # [B, C, N]
        x = x.permute(2, 0, 1)  # [N, B, C]
        x = x.reshape(-1, n, 2, 4).flatten(1, 2)  # [N, B * 2, 4]
        x = x.flatten(0, 1)  # [N * B * 2, 4]
        x = x.unflatten(0, (4, n * 2)).reshape(4, n, 8)
        x = torch.cat([x, 2 * x], 1)  # [N, 2 * B, C]
        x, y = x.chunk(2, 1)
        y = y.repeat(1, 3, 1)[:, :n]
        z = y.flatten(0, 1).unflatten(0, (4, n)).movedim(1, 0)  # [B, N, C]
        return self.head((x.transpose(0, 1) + z).mean(1))


class Attending(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem, self.head = nn.Conv2d(3, 8, 4, 4), nn.Linear(8, 5)
        self.attention = nn.MultiheadAttention(8, 2)

    def forward(self, x):
        x = self.stem(x).flatten(2).permute(2, 0, 1)
        return self.head(self.attention(x, x, x)[0].mean(0))


class Marking(torch.fx.Interpreter):
    """Runs a graph on three images of which one is NaN, and keeps where that arrives."""

    def __init__(self, program):
        super().__init__(program.root, graph=program.graph)
        self.found = {}

    def run_node(self, n):
        value = super().run_node(n)
        if isinstance(value, torch.Tensor) and value.is_floating_point() and value.isnan().any():
            self.found[n] = value.isnan()
        return value


@pytest.mark.parametrize("net", [Wandering, Attending])
def test_layouts_are_where_an_image_goes(net):
    torch.manual_seed(0)
    program = export(net().eval(), torch.randn(2, 3, 8, 8))
    images = torch.randn(3, 3, 8, 8)
    images[1] = float("nan")
    marking = Marking(program)
    marking.run(images)
    assert len(marking.found) > 10
    places = set()
    for node, broken in marking.found.items():
        layout = program.layout(node)
        places.add(layout)
        reached = layout.unfold(broken, 3).flatten(1)  # an image a step
        assert reached[1].any(), node
        assert not reached[[0, 2]].any(), node
    assert len(places) >= 3


def test_what_mixes_images_has_no_layout():
    class Mixing(nn.Module):
        def forward(self, x):
            x = x.flatten(1)
            return x @ x.t() @ x

    program = export(Mixing(), torch.randn(2, 1, 2, 2))
    product = next(n for n in program.graph.nodes if "matmul" in str(n.target))
    with pytest.raises(ConversionError, match=r"matmul of shape .* 2 axes that depend on the batch"):
        program.layout(product)
