"""A neuron leaves the process as it found it; one documented call lets large tensors keep their pages."""

import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

from spiking.kernels.cpu.memory import USER_SETTINGS

ROOT = Path(__file__).resolve().parents[2]
glibc = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the C library is not glibc")

# Page faults of one large pass: what a second result costs once the first one has been freed.
FAULTS = """
import resource, torch, spiking
x = torch.zeros(4, 3 << 20)
neuron = spiking.LIF()
def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    with torch.no_grad():
        neuron(x)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
def settled():
    return min([faults() for _ in range(8)][4:])
"""

# Everything that a call of mallopt would go through: it must not be looked up at all.
WATCH = """
import ctypes
looked_up = []
class Watched(ctypes.CDLL):
    def __getattr__(self, name):
        looked_up.append(name)
        return super().__getattr__(name)
ctypes.CDLL = Watched
"""


@glibc
def test_a_neuron_changes_no_setting_of_malloc():
    script = (
        WATCH
        + FAULTS
        + """
x.requires_grad_()
neuron(x).sum().backward()
neuron(x[:, :64])
spiking.LMHT(4)(x.detach())
assert "mallopt" not in looked_up, looked_up
spiking.keep_memory()
assert "mallopt" in looked_up, "the watch sees a call where there is one"
print("fine")
"""
    )
    assert python(script).strip() == "fine"


@glibc
def test_pages_are_faulted_in_anew_until_keep_memory_is_called():
    script = FAULTS + "print(settled() > 10_000, spiking.keep_memory(), settled() < 1_000)"
    assert python(script).split() == ["True", "True", "True"]


@glibc
@pytest.mark.parametrize("variable", [*USER_SETTINGS, "FULGURITE_MALLOC"])
def test_settings_of_the_user_win(variable):
    value = {"GLIBC_TUNABLES": "glibc.malloc.tcache_count=7", "FULGURITE_MALLOC": "default"}
    script = "import spiking; print(spiking.keep_memory(), spiking.keep_memory())"
    assert python(script, **{variable: value.get(variable, "33554432")}).split() == ["False", "False"]


@glibc
@pytest.mark.parametrize("command", ["fit", pytest.param("convert", marks=pytest.mark.slow)])
def test_the_command_line_keeps_memory(command, tmp_path):
    """It is set before the work begins, so a run that fails for its config has set it."""
    (tmp_path / "wrong.yaml").write_text("nonsense: 1\n")
    script = f"""
import contextlib, io
from cli.main import main
from spiking import keep_memory
with contextlib.suppress(SystemExit), contextlib.redirect_stderr(io.StringIO()):
    main(["{command}", "--config", r"{tmp_path / "wrong.yaml"}"])
print(keep_memory.cache_info().currsize)
"""
    assert python(script).split()[-1] == "1"


def python(script, **variables):
    """What a Python process of its own prints, without settings of malloc but ``variables``."""
    hidden = {*USER_SETTINGS, "FULGURITE_MALLOC"}
    env = {name: value for name, value in os.environ.items() if name not in hidden}
    env |= {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", **variables}
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, env=env, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout
