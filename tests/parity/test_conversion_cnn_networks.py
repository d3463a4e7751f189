"""Whole converted networks against the authors' four codes, through the public `convert`.

Spikes and masks must agree exactly, site by site; logits up to rounding.
"""

import copy
import re
from contextlib import contextmanager

import pytest
import torch
import torchvision

from conversion import convert
from conversion.calibration.batches import Batches
from conversion.calibration.observe import run_observed
from conversion.methods import parallel
from conversion.methods.cos import initial_membrane
from conversion.methods.srp import srp
from conversion.network.site import sites
from tests.parity.goldens import over_files

pytestmark = pytest.mark.golden


class Network:
    """A golden network, its conversion, and which tensors of the file were compared."""

    def __init__(self, source, golden):
        self.source, self.sidecar, self.golden = source, golden.sidecar, golden
        self.equal, self.everything_was_compared = golden.equal, golden.everything_was_compared

    def __getitem__(self, key):
        return self.golden[key]

    def convert(self, method, **settings):
        """The converted network, and its sites under the names of the file."""
        self.close("ann_logits", self.source(self["input"]))
        settings = {"input_size": self["input"].shape[1:], "progress": False, **settings}
        self.snn = convert(self.source, method, self.sidecar["T"], **settings)
        found = sites(self.snn).values()
        self.sites = dict(zip(self.sidecar["activation_sites_in_order"], found, strict=True))
        return self.snn

    def close(self, key, got, tolerance="tolerance"):
        self.golden.close(key, got, atol=self.sidecar[tolerance])

    def counts(self, watched, first=0):
        for name, (_, outputs) in watched.items():
            self.equal(f"spike_count.{name}", outputs[first:].ne(0).sum(0))


@pytest.fixture
def network(qcfs_source, golden):
    return Network(qcfs_source, golden)


@pytest.fixture(autouse=True)
def no_grad():
    with torch.no_grad():
        yield


@contextmanager
def watching(units):
    """Inputs in units of the threshold, and outputs, of each unit that runs within the block."""
    seen, handles = {}, []
    for name, unit in units.items():

        def keep(module, inputs, output, name=name):
            seen[name] = inputs[0] / getattr(module, "v_threshold", 1.0), output

        handles.append(unit.register_forward_hook(keep))
    yield seen
    for handle in handles:
        handle.remove()


@over_files("params.*", "snn_mean_logits", "spike_count.*")
def test_qcfs(network):
    case = network
    snn = case.convert("qcfs")
    with watching(case.sites) as watched:
        case.close("snn_logits_seq", snn(case["input"], steps=True))
    case.counts(watched)
    case.close("snn_mean_logits", snn(case["input"]))
    case.everything_was_compared()


@over_files("params.*", "logits_calibration_seq", "mask.*")
def test_srp(network):
    case = network
    tau = case.sidecar["tau"]
    snn = case.convert("srp", tau=tau)
    head = next(m for m in reversed(list(snn.modules())) if isinstance(m, torch.nn.Linear))
    with watching({**case.sites, "head": head}) as watched:
        logits = snn(case["input"], steps=True)
    rehearsed = watched.pop("head")[1].unflatten(0, (-1, len(case["input"])))[:tau]
    case.close("logits_calibration_seq", rehearsed)
    case.close("logits_inference_seq", logits)
    case.close("logits_inference_cumsum", logits.cumsum(0))
    case.counts(watched, first=tau)
    for name, (currents, _) in watched.items():
        case.equal(f"mask.{name}", srp(currents, tau)[1])
    case.everything_was_compared()


@over_files("params.*", "snn_logits_cumsum", "v0.*")
def test_cos(network):
    case = network
    rho, iterations = case.sidecar["rho"], case.sidecar["iterations"]
    snn = case.convert("cos", rho=rho, iterations=iterations)
    with watching(case.sites) as watched:
        logits = snn(case["input"], steps=True)
    case.close("snn_logits_seq", logits)
    case.close("snn_logits_cumsum", logits.cumsum(0))
    case.counts(watched)
    for name, (currents, _) in watched.items():
        case.close(f"v0.{name}", initial_membrane(currents, rho, iterations))
    case.everything_was_compared()


@over_files("params.*", "snn_logits_seq", "!snn_mean_logits", "!v0.*", "!calibration_batches")
def test_parallel_without_loss(network):
    case = network
    assert case.sidecar["T"] == case.sidecar["L"]
    snn = case.convert("parallel")
    with watching(case.sites) as watched:
        case.close("snn_logits_seq", snn(case["input"], steps=True))
    case.counts(watched)
    case.close("ann_logits", snn(case["input"]))
    case.everything_was_compared()


def corrected(case, **settings):
    """Parallel conversion with corrections, compared in every detail that both golden files have."""
    batches = list(case["calibration_batches"])
    passes = case.sidecar["passes_over_the_calibration_list"]
    momentum = case.sidecar["momentum"]
    snn = case.convert("parallel", calibration=batches, passes=passes, momentum=momentum, **settings)
    for name, site in case.sites.items():
        case.close(f"calibration.{name}.rec_in_mean", site.phi_in, "tolerance_calibration")
        case.close(f"calibration.{name}.rec_th_mean", site.phi_out, "tolerance_calibration")
    case.close("snn_logits_seq", snn(case["input"], steps=True))
    case.close("calibrated_logits", snn(case["input"]))
    plain = copy.deepcopy(snn)
    for site in sites(plain).values():
        site.phi_in.zero_()
        site.phi_out.zero_()
    case.close("uncalibrated_logits", plain(case["input"]))


@over_files("params.*", "calibration_batches", "calibrated_logits", "!theta.*")
def test_parallel_with_corrections(network):
    case = network
    assert case.sidecar["L"] == case.sidecar["L_reference"]  # the reference is the source itself
    corrected(case)
    case.everything_was_compared()


class ReLUResNet(torchvision.models.ResNet):
    """torchvision's own class, modules and names, with the widths and depths of a state dict."""

    def __init__(self, state):
        small = "layer1.0.conv3.weight" not in state
        block = torchvision.models.resnet.BasicBlock if small else torchvision.models.resnet.Bottleneck
        depths = [
            sum(bool(re.fullmatch(rf"layer{s}\.\d+\.conv1\.weight", k)) for k in state) for s in (1, 2, 3, 4)
        ]
        super().__init__(block, depths, num_classes=len(state["fc.bias"]))
        stem = self.inplanes = len(state["bn1.weight"])
        self.conv1 = torch.nn.Conv2d(3, stem, 7, stride=2, padding=3, bias=False)
        self.bn1 = torch.nn.BatchNorm2d(stem)
        for s, depth in enumerate(depths, 1):
            planes = len(state[f"layer{s}.0.bn1.weight"])
            setattr(self, f"layer{s}", self._make_layer(block, planes, depth, stride=1 if s == 1 else 2))
        self.fc = torch.nn.Linear(self.inplanes, len(state["fc.bias"]))
        self.load_state_dict(state)


@pytest.fixture
def relu_network(golden):
    return Network(ReLUResNet(golden.under("params.")).eval(), golden)


OF_RELU = over_files("params.*", "calibration_batches", "calibrated_logits", "theta.*")


def recorded(model, batches):
    """The authors' pass that records maxima, every site clipped to what it has recorded so far.

    Where a channel has not been positive yet the bounds of their clip cross and its outcome is the
    maximum, a negative number, which later sites see. We refuse to let activations become negative.
    Returns the maxima, and the sites where bounds crossed.
    """
    largest, crossed = {}, set()

    def watch(name, site, x):
        top = x.amax((0, 2, 3)).view(-1, 1, 1)
        largest[name] = torch.maximum(largest[name], top) if name in largest else top
        if bool((largest[name] < 0).any()):
            crossed.add(name)
        return torch.minimum(x.relu(), largest[name])

    run_observed(model, batches, "maxima", watch)
    return largest, crossed


@OF_RELU
def test_parallel_of_a_relu_network(relu_network, monkeypatch):
    case = relu_network

    def as_recorded(model, batches, rule, levels):
        assert rule == "max"
        largest, _ = recorded(model, batches)
        for name, site in sites(model).items():
            site.v_threshold.copy_(largest[name])

    monkeypatch.setattr(parallel, "find_thresholds", as_recorded)
    corrected(case)
    for name, site in case.sites.items():
        case.close(f"theta.{name}", site.v_threshold, "tolerance_calibration")
    assert list(case.snn.report.skipped) == ["relu"]
    case.everything_was_compared()


@OF_RELU
def test_thresholds_of_a_relu_network(relu_network):
    case = relu_network
    batches = list(case["calibration_batches"])
    snn = case.convert("parallel", calibration=batches)
    _, crossed = recorded(snn, Batches(batches, progress=False))
    for (name, site), path in zip(case.sites.items(), sites(snn), strict=True):
        case.close(f"theta.{name}", site.v_threshold, "tolerance_calibration")
        if path in crossed:
            return  # the authors' later sites have seen negative activations
