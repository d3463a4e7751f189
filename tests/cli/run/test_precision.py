"""A run in bfloat16 says so where the processor computes it piece by piece."""

import platform

import lightning.pytorch as pl
import pytest
import torch

from cli.run import precision


@pytest.fixture
def processor(monkeypatch):
    """A function that gives this machine the instructions of another."""

    def become(machine, **has):
        monkeypatch.setattr(platform, "machine", lambda: machine)
        for name in ("avx512_bf16", "amx_tile"):
            monkeypatch.setattr(torch.cpu, f"_is_{name}_supported", lambda name=name: has.get(name, False))

    return become


def trainer(kind):
    return pl.Trainer(
        accelerator="cpu", precision=kind, logger=False, enable_checkpointing=False, enable_progress_bar=False
    )


def test_only_a_cpu_without_the_instructions_is_warned_of(processor):
    for machine, has, warned in (
        ("x86_64", {}, True),
        ("AMD64", {}, True),
        ("x86_64", {"avx512_bf16": True}, False),
        ("x86_64", {"amx_tile": True}, False),
        ("arm64", {}, False),
    ):
        processor(machine, **has)
        told = precision.slow_precision(trainer("bf16-mixed"))
        assert (told is not None) == warned, machine
        if told:
            assert "bf16-mixed" in told
            assert "--trainer.precision 32-true" in told
        assert precision.slow_precision(trainer("32-true")) is None


def test_torch_answers():
    """The questions are not part of torch's public interface; where one is gone, nobody is warned."""
    assert precision.has_bfloat16() in (True, False)
    for name in ("avx512_bf16", "amx_tile"):
        assert callable(getattr(torch.cpu, f"_is_{name}_supported"))
