"""Thresholds of ECMT and DCGS from calibration batches."""

import pytest
import torch

from conversion.calibration import statistics as thresholds

FOLDER = "conversion_transformer"
GOLDEN_FILES = {
    "conversion_transformer/ecmt_threshold_percentile",
    "conversion_transformer/dcgs_threshold_percentile",
    "conversion_transformer/dcgs_threshold_iteration",
}
pytestmark = pytest.mark.golden
UPDATES = (0, 1, 2, 3, 5, 10, 20, 50, 100)  # of the rows of a trace


def test_ecmt(golden):
    data = golden(f"{FOLDER}/ecmt_threshold_percentile")
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


def test_dcgs_percentiles(golden):
    data = golden(f"{FOLDER}/dcgs_threshold_percentile")
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


def test_dcgs_iteration(golden):
    data = golden(f"{FOLDER}/dcgs_threshold_iteration")
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

    cases = {key.split(".")[0] for key in data.tensors if key.endswith(".theta_trace")}
    assert cases
    for case in cases:
        n = int(case.removeprefix("n"))
        for suffix, mu, variance in (("", mean, var), ("_f64", mean.double(), var.double())):
            trace = [thresholds.iterated_threshold(mu, variance, n, updates=u) for u in UPDATES]
            compare(f"{case}.theta_trace{suffix}", torch.stack(trace), f"theta_trace{suffix}_relative")
        last = thresholds.iterated_threshold(mean.double(), var.double(), n, updates=3000)
        compare(f"{case}.theta_3000", last, "theta_3000_relative")
        k = thresholds.scale_factor(torch.ones_like(mean), mean, var, n)
        compare(f"{case}.k_first", k, "k_first_relative")
        best = thresholds.best_threshold(mean.double(), var.double(), n)
        if n < 20:  # more levels take more updates
            assert (last / best - 1).abs().median() < 1e-3
    theta = thresholds.iterated_threshold(data["degenerate.mean"], data["degenerate.var"], 64)
    assert torch.isfinite(theta).all()
    assert torch.equal(theta.sign(), data["degenerate.theta"].sign())
    data.everything_was_compared()
