"""The hybrid training of LMHT_SNN: a QCFS network, its conversion, and LM-HT networks that start from it."""

import pytest
import torch

import zoo
from conversion import convert, lmht
from spiking.qcfs import QCFS
from tests.parity.goldens import over_cases
from tests.parity.sources import described
from zoo.models.qcfs_resnet import checkpoint_filter_fn

pytestmark = pytest.mark.golden

CLAMP_CHANGED = (2, 14)  # from this torch on, torch.clamp passes no gradient at its bounds
NAMES = {"conv1.2": "act1", "residual_function.2": "act1", "relu": "act2"}


@pytest.fixture
def source(case):
    state = case.under("state.")
    _, sizes = described(state)
    model = zoo.create("qcfs_resnet20", levels=case.settings["qcfs_levels"], **sizes).eval()
    missing, unexpected = model.load_state_dict(checkpoint_filter_fn(state, model), strict=False)
    assert not unexpected
    assert all(key.endswith("num_batches_tracked") for key in missing)
    return model, sizes


class AsRecorded(torch.autograd.Function):
    """QCFS with the gradient that the authors' ``clamp`` has in newer torch: none in the outer two bins.

    Networks of the papers were trained with older ones, and `spiking.qcfs` keeps to those; the file was
    recorded with whatever torch its sidecar names.
    """

    @staticmethod
    def forward(ctx, x, theta, levels):
        r = torch.floor(x / theta * levels + 0.5)
        y = r.clip(0, levels) / levels * theta
        inside = (r > 0) & (r < levels)
        ctx.save_for_backward(inside, torch.where(inside, (y - x) / theta, (r >= levels).to(x.dtype)))
        return y

    @staticmethod
    def backward(ctx, g):
        inside, slope = ctx.saved_tensors
        return g * inside, (g * slope).sum().reshape(1), None


def ours(theirs):
    """Path of an activation in our network."""
    stage, _, rest = theirs.partition(".0.")
    return NAMES[theirs] if theirs in NAMES else f"layer{int(stage[4]) - 1}.0.{NAMES[rest]}"


@over_cases("qcfs_logits", "if_logits_t*", "lmht_logits_*")
def test_everything(case, source, monkeypatch):
    model, sizes = source
    x = case["x"].clone().requires_grad_()
    recorded = tuple(int(part) for part in case.sidecar["source"]["torch"].split(".")[:2])
    with monkeypatch.context() as patch:
        if recorded >= CLAMP_CHANGED:
            patch.setattr(QCFS, "forward", lambda m, x: AsRecorded.apply(x, m.v_threshold, m.levels))
        logits = model(x)
    case.close("qcfs_logits", logits, rtol=0, atol=1e-4)
    (logits * case["grad_output"]).sum().backward()
    case.close("qcfs_grad_x", x.grad, rtol=1e-3, atol=1e-4)
    for key in [k for k in case.tensors if k.startswith("qcfs_grad.")]:
        path = ours(key.removeprefix("qcfs_grad.").removesuffix(".thresh"))
        case.close(key, model.get_submodule(path).v_threshold.grad, rtol=1e-3, atol=1e-4)

    L, T, x = case.settings["L"], case.settings["T"], case["x"]
    with torch.no_grad():
        for key in sorted(k for k in case.keys if k.startswith("if_logits_t")):
            steps = int(key.removeprefix("if_logits_t"))
            spiking = convert(model, "qcfs", steps, input_size=tuple(x.shape[1:]), progress=False)
            case.close(key, spiking(x, steps=True), rtol=0, atol=1e-4)
        for start, key in (
            ({"official_bias": True}, "official"),
            ({"init": "scaled_bias"}, "bias_scaled"),
            ({"init": "normalized"}, None),
        ):
            network = zoo.create("lmht_resnet20", time_steps=T, neuron_args={"levels": L}, **sizes)
            lmht.from_qcfs(network, model, **start)
            steps = network.eval()(x, steps=True)
            scale = 1 if key is None else L
            gap = (steps.mean(0) / scale - case["qcfs_logits"]).abs().max().item()
            if key is not None:
                case.close(f"lmht_logits_{key}", steps, rtol=0, atol=1e-4)
                assert gap == pytest.approx(case.settings[f"gap_{key}"], abs=1e-4)
            if key != "official" and case.settings["qcfs_levels"] == L * T:
                # equal but for float32, whose last bits grow with the logits
                assert gap < 1e-5 * max(1.0, float(case["qcfs_logits"].abs().max()))
    case.everything_was_compared()
