"""The tables of operations: what is called affine is affine, and what has no rule is refused."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from conversion import ConversionError, UnsupportedOperationError, convert
from conversion.convert import prepare
from conversion.graph import ops, tables

aten = torch.ops.aten
W = torch.randn(4, 4, 3, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
MEAN = torch.rand(4, dtype=torch.float64) + 0.5
INDEX = torch.tensor([2, 0, 3, 1])
HALF = [3, 3]
UP = ([12, 12], False)
GRID = torch.rand(1, 5, 5, 2, generator=torch.Generator().manual_seed(3), dtype=torch.float64) * 2 - 1


def everywhere(x):
    return INDEX.view(1, 4, 1, 1).expand(len(x), 4, 6, 6)


# one call of every operation that the tables call affine, on maps [B, 4, 6, 6]
AFFINE = {
    "view": lambda x: aten.view(x, [-1, 2, 2, 6, 6]),
    "reshape": lambda x: aten.reshape(x, [-1, 144]),
    "_unsafe_view": lambda x: aten._unsafe_view(x, [-1, 144]),
    "permute": lambda x: aten.permute(x, [0, 2, 3, 1]),
    "transpose": lambda x: aten.transpose(x, 1, 2),
    "t": lambda x: aten.t(x[0, 0]),
    "unsqueeze": lambda x: aten.unsqueeze(x, 1),
    "unsqueeze_": lambda x: aten.unsqueeze_(x.clone(), 1),
    "squeeze": lambda x: aten.squeeze(x[:, :1], 1),
    "squeeze_": lambda x: aten.squeeze_(x[:, :1].clone(), 1),
    "expand": lambda x: aten.expand(x[:, :1], [-1, 4, -1, -1]),
    "clone": aten.clone,
    "contiguous": aten.contiguous,
    "alias": aten.alias,
    "detach": aten.detach,
    "lift_fresh_copy": aten.lift_fresh_copy,
    "_to_copy": lambda x: aten._to_copy(x, dtype=torch.float64),
    "to": lambda x: aten.to(x, torch.float64),
    "slice": lambda x: aten.slice(x, 1, 1, 3),
    "select": lambda x: aten.select(x, 1, 2),
    "narrow": lambda x: aten.narrow(x, 1, 1, 2),
    "unbind": lambda x: aten.unbind(x, 1)[1],
    "split": lambda x: aten.split(x, 2, 1)[1],
    "split_with_sizes": lambda x: aten.split_with_sizes(x, [1, 3], 1)[1],
    "chunk": lambda x: aten.chunk(x, 2, 1)[1],
    "cat": lambda x: aten.cat([x, W[:1, :, :1, :1].expand(len(x), 4, 6, 6), 2 * x], 1),
    "stack": lambda x: aten.stack([x, 2 * x], 1),
    "roll": lambda x: aten.roll(x, [2], [2]),
    "flip": lambda x: aten.flip(x, [3]),
    "rot90": lambda x: aten.rot90(x, 1, [2, 3]),
    "movedim": lambda x: aten.movedim(x, 1, 3),
    "moveaxis": lambda x: aten.moveaxis(x, 1, 3),
    "swapaxes": lambda x: aten.swapaxes(x, 1, 3),
    "flatten": lambda x: aten.flatten(x, 1, 3),
    "unflatten": lambda x: aten.unflatten(x, 1, [2, 2]),
    "repeat": lambda x: aten.repeat(x, [1, 2, 1, 1]),
    "tile": lambda x: aten.tile(x, [1, 2, 1, 1]),
    "repeat_interleave": lambda x: aten.repeat_interleave(x, 2, 1),
    "index": lambda x: aten.index(x, [None, INDEX]),
    "index_select": lambda x: aten.index_select(x, 1, INDEX),
    "gather": lambda x: aten.gather(x, 1, INDEX.view(1, 4, 1, 1).expand(len(x), 4, 6, 6)),
    "pixel_shuffle": lambda x: aten.pixel_shuffle(x, 2),
    "pixel_unshuffle": lambda x: aten.pixel_unshuffle(x, 2),
    "channel_shuffle": lambda x: aten.channel_shuffle(x, 2),
    "native_channel_shuffle": lambda x: aten.native_channel_shuffle(x, 2),
    "constant_pad_nd": lambda x: aten.constant_pad_nd(x, [1, 2], 3.0),
    "pad": lambda x: aten.pad(x, [1, 1, 1, 1], "circular"),
    "reflection_pad2d": lambda x: aten.reflection_pad2d(x, [1, 1, 1, 1]),
    "replication_pad2d": lambda x: aten.replication_pad2d(x, [1, 1, 1, 1]),
    "im2col": lambda x: aten.im2col(x, [2, 2], [1, 1], [0, 0], [2, 2]),
    "unfold": lambda x: aten.unfold(x, 2, 2, 2),
    "upsample_nearest2d": lambda x: aten.upsample_nearest2d(x, [12, 12]),
    "upsample_bilinear2d": lambda x: aten.upsample_bilinear2d(x, *UP),
    "upsample_bicubic2d": lambda x: aten.upsample_bicubic2d(x, *UP),
    "_upsample_bilinear2d_aa": lambda x: aten._upsample_bilinear2d_aa(x, HALF, False),
    "_upsample_bicubic2d_aa": lambda x: aten._upsample_bicubic2d_aa(x, HALF, False),
    "neg": aten.neg,
    "mean": lambda x: aten.mean(x, [2, 3]),
    "sum": lambda x: aten.sum(x, [2, 3]),
    "cumsum": lambda x: aten.cumsum(x, 2),
    "avg_pool1d": lambda x: aten.avg_pool1d(x.flatten(2), [2]),
    "avg_pool2d": lambda x: aten.avg_pool2d(x, [3], [2], [1], True, False),
    "avg_pool3d": lambda x: aten.avg_pool3d(x, [2]),
    "adaptive_avg_pool1d": lambda x: aten.adaptive_avg_pool1d(x.flatten(2), [5]),
    "adaptive_avg_pool2d": lambda x: aten.adaptive_avg_pool2d(x, [4, 4]),
    "_adaptive_avg_pool2d": lambda x: aten._adaptive_avg_pool2d(x, [4, 4]),
    "adaptive_avg_pool3d": lambda x: aten.adaptive_avg_pool3d(x, [4, 4, 4]),
    "batch_norm": lambda x: aten.batch_norm(x, MEAN, MEAN, MEAN, MEAN, False, 0.1, 1e-5, False),
    "_native_batch_norm_legit_no_training": lambda x: aten._native_batch_norm_legit_no_training(
        x, MEAN, MEAN, MEAN, MEAN, 0.1, 1e-5
    )[0],
    "add": lambda x: aten.add(x, 2 * x + 1, alpha=3),
    "sub": lambda x: aten.sub(3 * x, x),
    "rsub": lambda x: aten.rsub(x, 1.0),
    "copy": lambda x: aten.copy(torch.zeros_like(x), x),
    "slice_scatter": lambda x: aten.slice_scatter(x, 2 * x[:, :2] + 1, 1, 0, 2),
    "select_scatter": lambda x: aten.select_scatter(x, 2 * x[:, 2] + 1, 1, 0),
    "conv1d": lambda x: aten.conv1d(x.flatten(2), W[..., 0], MEAN),
    "conv2d": lambda x: aten.conv2d(x, W, MEAN),
    "conv3d": lambda x: aten.conv3d(x.unsqueeze(2), W.unsqueeze(2), MEAN),
    "convolution": lambda x: aten.convolution(x, W, MEAN, [1, 1], [1, 1], [1, 1], False, [0, 0], 1),
    "conv_transpose2d": lambda x: aten.conv_transpose2d(x, W, MEAN),
    "linear": lambda x: aten.linear(x.permute(0, 2, 3, 1), W[..., 0, 0], MEAN),
    "where": lambda x: aten.where(W[0, :, :1, :1] > 0, x, 2 * x + 1),
    "masked_fill": lambda x: aten.masked_fill(x, W[0, :, :1, :1] > 0, 3.0),
    "upsample_nearest1d": lambda x: aten.upsample_nearest1d(x.flatten(2), [50]),
    "upsample_nearest3d": lambda x: aten.upsample_nearest3d(x.unsqueeze(1), [4, 9, 9]),
    "_upsample_nearest_exact1d": lambda x: aten._upsample_nearest_exact1d(x.flatten(2), [50]),
    "_upsample_nearest_exact2d": lambda x: aten._upsample_nearest_exact2d(x, [9, 9]),
    "_upsample_nearest_exact3d": lambda x: aten._upsample_nearest_exact3d(x.unsqueeze(1), [4, 9, 9]),
    "upsample_linear1d": lambda x: aten.upsample_linear1d(x.flatten(2), [50], False),
    "upsample_trilinear3d": lambda x: aten.upsample_trilinear3d(x.unsqueeze(1), [4, 9, 9], False),
    "reflection_pad1d": lambda x: aten.reflection_pad1d(x.flatten(2), [1, 1]),
    "reflection_pad3d": lambda x: aten.reflection_pad3d(x.unsqueeze(1), [1] * 6),
    "replication_pad1d": lambda x: aten.replication_pad1d(x.flatten(2), [1, 1]),
    "replication_pad3d": lambda x: aten.replication_pad3d(x.unsqueeze(1), [1] * 6),
    "diagonal": lambda x: aten.diagonal(x, 1, 2, 3),
    "diag_embed": lambda x: aten.diag_embed(x, 1),
    "tril": lambda x: aten.tril(x, 1),
    "triu": lambda x: aten.triu(x, 1),
    "_adaptive_avg_pool3d": lambda x: aten._adaptive_avg_pool3d(x, [4, 4, 4]),
    "col2im": lambda x: aten.col2im(x.flatten(2), [7, 7], [2, 2], [1, 1], [0, 0], [1, 1]),
    "diagonal_scatter": lambda x: aten.diagonal_scatter(x, 2 * x[:, :, 1] + 1, 0, 2, 3),
    "conv_transpose1d": lambda x: aten.conv_transpose1d(x.flatten(2), W[..., 0], MEAN),
    "conv_transpose3d": lambda x: aten.conv_transpose3d(x.unsqueeze(2), W.unsqueeze(2), MEAN),
    "index_put": lambda x: aten.index_put(x, [None, INDEX[:2]], 2 * x[:, :2] + 1, True),
    "index_add": lambda x: aten.index_add(x, 1, INDEX[:2], 2 * x[:, :2] + 1, alpha=3),
    "index_copy": lambda x: aten.index_copy(x, 1, INDEX[:2], 2 * x[:, :2] + 1),
    "scatter": lambda x: aten.scatter(x, 1, everywhere(x), 2 * x + 1),
    "scatter_add": lambda x: aten.scatter_add(x, 1, everywhere(x), 2 * x + 1),
    "scatter_reduce": lambda x: aten.scatter_reduce(x, 1, everywhere(x), 2 * x + 1, "mean"),
    "lerp": lambda x: aten.lerp(x, 2 * x + 1, MEAN.view(4, 1, 1)),
    "grid_sampler_2d": lambda x: aten.grid_sampler_2d(x, GRID.expand(len(x), 5, 5, 2), 0, 0, False),
    "grid_sampler_3d": lambda x: aten.grid_sampler_3d(
        x.unsqueeze(1), GRID[..., [0, 0, 1]].unsqueeze(1).expand(len(x), 1, 5, 5, 3), 0, 0, False
    ),
}
TABLES = ops.SHAPE | ops.LINEAR | ops.SUMS | ops.WEIGHTED | ops.MASKS | {*tables.ASSIGNMENTS, *tables.BLENDS}


def test_every_affine_operation_is_tried():
    assert set(AFFINE) == TABLES


@pytest.mark.parametrize("name", sorted(AFFINE))
def test_affine_operations_commute_with_the_mean(name):
    steps = torch.randn(3, 2, 4, 6, 6, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    expected = AFFINE[name](steps.mean(0))
    mean = torch.stack([AFFINE[name](x) for x in steps]).mean(0)
    torch.testing.assert_close(mean, expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("name", sorted(ops.NONLINEAR | ops.PRODUCTS))
def test_other_names_are_operations(name):
    assert hasattr(aten, name)


def test_tables_do_not_overlap():
    groups = [
        TABLES,
        ops.NONLINEAR,
        ops.PRODUCTS,
        ops.ACTIVATIONS,
        frozenset(ops.FILLED),
        frozenset(tables.REFUSED),
    ]
    assert sum(map(len, groups)) == len(frozenset().union(*groups))


# of sizes alone, or never in the graph of a network
NO_SIGNAL = {"arange", "empty_strided", "scalar_tensor", "_local_scalar_dense"}


def test_every_core_operator_has_a_rule_or_a_reason():
    """What torch takes all others apart into: https://docs.pytorch.org/docs/stable/torch.compiler_ir.html."""
    # `dir(aten)` has only those that somebody has asked for; what works in place is gone from a graph
    named = {name.removeprefix("aten::").split(".")[0] for name in torch._C._dispatch_get_all_op_names()}
    core = {
        name
        for name in named
        if not name.endswith("_")
        and hasattr(getattr(aten, name, None), "overloads")
        and any(
            torch.Tag.core in getattr(getattr(aten, name), o).tags for o in getattr(aten, name).overloads()
        )
    }
    assert len(core) > 150
    known = TABLES | ops.NONLINEAR | ops.PRODUCTS | ops.ACTIVATIONS | {"div", *ops.FILLED, *tables.REFUSED}
    known |= {"baddbmm", "addmm"}  # a product and a sum
    missing = core - known - NO_SIGNAL
    assert {n for n in missing if not n.startswith("sym_") and not n.endswith("_backward")} == set()


class Between(nn.Module):
    """An operation between two convolutions, on maps that have come through neurons."""

    def __init__(self, operation):
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second, self.head = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 1), nn.Linear(8, 5)
        self.operation = operation

    def forward(self, x):
        x = self.operation(self.second(self.first(x).relu()))
        return self.head(x.relu().mean((2, 3)))


def converted(operation, **settings):
    torch.manual_seed(1)
    model = Between(operation).eval()
    return convert(model, "qcfs", 4, torch.randn(3, 3, 8, 8), progress=False, **settings)


def prepared(operation):
    torch.manual_seed(1)
    return prepare(Between(operation).eval(), "qcfs", 4, input_size=(3, 8, 8))


def halves(x):
    y = x.clone()
    y[:, :4] = 2 * y[:, :4]
    return y


ANALOG = {
    "einsum of two signals": (lambda x: torch.einsum("bchw,bdhw->bcd", x, x)[..., None] * 0.1, {"einsum"}),
    "einsum with weights": (lambda x: torch.einsum("bchw,cd->bdhw", x, torch.eye(8)), set()),
    "division of signals": (lambda x: x / (1 + x.square()), {"square", "pow", "div", "reciprocal", "mul"}),
    "rounded division": (lambda x: torch.div(x, 0.3, rounding_mode="floor"), {"div"}),
    "assignment": (halves, set()),
    "indices": (lambda x: x[:, torch.tensor([1, 0, 3, 2, 5, 4, 7, 6])], set()),
    "batch behind another axis": (lambda x: x.transpose(0, 1).relu().transpose(0, 1), set()),
    "constants of the size of the batch": (lambda x: x + torch.ones(x.shape[0], 8, 1, 1), set()),
    # moved, else the ReLU behind them would make them a ReLU and a capped one, which neurons stand for
    "leaky ReLU": (lambda x: F.leaky_relu(x) + 0.1, {"leaky_relu"}),
    "cap that starts below 0": (lambda x: F.hardtanh(x) + 0.5, {"hardtanh"}),
}


@pytest.mark.parametrize("name", ANALOG)
def test_operations_between_neurons(name):
    operation, analog = ANALOG[name]
    snn = converted(operation)
    found = set(snn.report.analog.values())
    assert found == analog or (found and found <= analog)
    assert snn(torch.randn(5, 3, 8, 8)).shape == (5, 5)


REFUSED = {
    "as_strided": lambda x: x.as_strided(x.shape, x.stride()),
    "_native_batch_norm_legit": lambda x: F.batch_norm(x, None, None, training=True),
    "native_dropout": lambda x: F.dropout(x, 0.5, training=True),
    "rand_like": lambda x: x + torch.rand_like(x),
    "randn": lambda x: x + torch.randn(8, 1, 1),
    "_fft_c2c": lambda x: torch.fft.fft2(x).abs(),
    "masked_scatter": lambda x: x.masked_scatter(torch.ones(6, 6, dtype=torch.bool), x),
    "linalg_qr": lambda x: torch.linalg.qr(x)[0],
}


@pytest.mark.parametrize("name", REFUSED)
def test_operations_without_a_rule_are_refused(name):
    with pytest.raises(UnsupportedOperationError, match=rf"'{name}'.*replace it in the source"):
        prepared(REFUSED[name])


def test_refusal_names_the_module():
    class Transforming(nn.Module):
        def forward(self, x):
            return torch.fft.fft2(x).abs()

    with pytest.raises(
        UnsupportedOperationError, match=r"aten\._fft.*module 'operation'\): it makes complex"
    ):
        prepared(Transforming())


def test_self_test_sees_what_still_images_hide(monkeypatch):
    """Steps that are all alike would let a nonlinear operation pass for an affine one."""
    monkeypatch.setattr(ops, "RULES", ((frozenset({"gelu"}), ops._linear), *ops.RULES))
    with pytest.raises(ConversionError, match="self-test failed"):
        converted(lambda x: F.gelu(8 * x))


def test_the_batch_may_lie_inside_another_axis():
    def rows_first(x):
        rows = x.unflatten(2, (2, 3)).permute(2, 0, 1, 3, 4)
        rows = rows.flatten(0, 1).relu().unflatten(0, (2, x.shape[0]))
        return rows.permute(1, 2, 0, 3, 4).flatten(2, 3)

    snn = converted(rows_first)
    assert [row.shape for row in snn.report.rows] == [(8, 6, 6), (2, 8, 3, 6), (8, 6, 6)]


def test_the_size_of_the_batch_stays_free():
    with pytest.raises(ConversionError, match=r"cannot be exported.*len\(x\)"):
        converted(lambda x: x + torch.ones(len(x), 8, 1, 1))
