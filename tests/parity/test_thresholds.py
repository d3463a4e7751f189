"""Thresholds of ECMT and DCGS from calibration batches."""

import re

import pytest
import torch

from conversion import thresholds
from tests.parity.goldens import over_files

pytestmark = pytest.mark.golden


@over_files("batches", "*.scale_p", "*.scale_n")
def test_ecmt(golden):
    data = golden
    shares = {key.split(".scale")[0] for key in data.tensors if key != "batches"}
    for name in shares:
        average, running = thresholds.Average(), []
        for batch in data["batches"]:
            average.add(thresholds.base_quantiles(batch, float(name.removeprefix("p"))))
            running.append(average.value)
        p, q = torch.stack(running).unbind(1)
        data.close(f"{name}.scale_p", p)
        data.close(f"{name}.scale_n", q)
    data.everything_was_compared()


@over_files("conv_batches", "token_batches", "q_batches", "kT_batches")
def test_dcgs_percentiles(golden):
    data = golden
    sources = {
        "relu_output": data["conv_batches"].relu(),
        "linear_input": data["token_batches"],
        "first": data["q_batches"],
        "second": data["kT_batches"],
    }
    for key in data.tensors:
        if key.endswith("_batches"):
            continue
        layer, mode, level, *operand = key.split(".")
        average = thresholds.Average()
        for batch in sources[operand[0] if operand else layer]:
            if mode == "max":
                value = thresholds.maximum(batch, level)
            else:
                value = thresholds.quantile(
                    batch, float(mode.removesuffix("p").replace("_", ".")) / 100, level
                )
            average.add(value, len(batch))
        data.close(key, average.value)
    data.everything_was_compared()


def updates(data, case):
    """After how many updates each row of a trace was written down, as the sidecar says."""
    about = data.sidecar["tensors"][f"{case}.theta_trace"]["description"]
    return [int(n) for n in re.search(r"after ([\d,]+) updates", about)[1].split(",")]


@over_files("batches", "batch_sizes", "*.theta_trace")
def test_dcgs_iteration(golden):
    data = golden
    tolerance = data.sidecar["tolerance"]
    moments, sizes = thresholds.Moments("channel"), data["batch_sizes"].tolist()
    for i, batch in enumerate(data["batches"].split(sizes)):
        moments.add(batch)
        for name, got in (("mean", moments.mean), ("var", moments.var)):
            limit = tolerance[f"running_{name}"]
            torch.testing.assert_close(got.flatten(), data[f"running_{name}"][i], rtol=0, atol=limit)
    mean, var = data["running_mean"][-1], data["running_var"][-1]

    def compare(key, got, limit):
        torch.testing.assert_close(got, data[key].to(got.dtype), rtol=tolerance[limit], atol=0)

    cases = {key.split(".")[0] for key in sorted(data.keys) if key.endswith(".theta_trace")}
    assert cases
    for case in cases:
        n = int(case.removeprefix("n"))
        for suffix, mu, variance in (("", mean, var), ("_f64", mean.double(), var.double())):
            trace = [thresholds.iterated_threshold(mu, variance, n, updates=u) for u in updates(data, case)]
            compare(f"{case}.theta_trace{suffix}", torch.stack(trace), f"theta_trace{suffix}_relative")
        key = next(k for k in data.keys if re.fullmatch(rf"{case}\.theta_\d+", k))
        many = int(key.rpartition("_")[2])
        last = thresholds.iterated_threshold(mean.double(), var.double(), n, updates=many)
        compare(key, last, "theta_3000_relative")
        k = thresholds.scale_factor(torch.ones_like(mean), mean, var, n)
        compare(f"{case}.k_first", k, "k_first_relative")
        best = thresholds.best_threshold(mean.double(), var.double(), n)
        if n < 20:  # more levels take more updates
            assert (last / best - 1).abs().median() < 1e-3
    theta = thresholds.iterated_threshold(data["degenerate.mean"], data["degenerate.var"], 64)
    assert torch.isfinite(theta).all()
    assert torch.equal(theta.sign(), data["degenerate.theta"].sign())
    data.everything_was_compared()
