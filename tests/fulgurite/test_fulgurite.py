"""The one name for all packages: lazy, complete, and the command by ``python -m``."""

import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

import fulgurite

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ["cli", "conversion", "datamodules", "lightning_modules", "spiking", "zoo"]


def run(*words, cwd=ROOT):
    return subprocess.run(
        [sys.executable, *words], cwd=cwd, env={"PYTHONPATH": str(ROOT)}, capture_output=True, text=True
    )


@pytest.mark.parametrize("name", PACKAGES)
def test_every_package_is_reached(name):
    assert getattr(fulgurite, name) is sys.modules[name]
    assert name in dir(fulgurite)


def test_the_version_is_the_distribution_s():
    assert fulgurite.__version__ == version("fulgurite")


def test_an_unknown_name_says_what_there_is():
    with pytest.raises(AttributeError, match=r"has no attribute 'zooo'.*spiking, zoo"):
        _ = fulgurite.zooo


def test_nothing_is_imported_before_it_is_used():
    heavy = {"torch", *PACKAGES}
    code = f"import sys, fulgurite; assert not set(sys.modules) & {heavy}; fulgurite.spiking.LIF"
    done = run("-c", code)
    assert done.returncode == 0, done.stderr


def test_the_module_is_the_command():
    done = run("-m", "fulgurite", "--version")
    assert done.stdout == f"fulgurite {version('fulgurite')}\n", done.stderr


@pytest.mark.parametrize("name", [*PACKAGES, "fulgurite"])
def test_every_package_ships_its_types(name):
    assert (ROOT / name / "py.typed").is_file()
