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


@pytest.mark.parametrize("hidden", ["zoo/__init__.py", "spiking.py"])
def test_a_hidden_package_is_named_with_the_way_out(tmp_path, hidden):
    (tmp_path / hidden).parent.mkdir(exist_ok=True)
    (tmp_path / hidden).write_text("")
    name = hidden.partition("/")[0].removesuffix(".py")
    done = run("-m", "fulgurite", "--version", cwd=tmp_path)
    assert done.returncode == 2
    assert f"{tmp_path / hidden.removesuffix('/__init__.py')} hides the package '{name}'" in done.stderr
    assert "rename it" in done.stderr
    assert "Traceback" not in done.stderr
    assert run("-P", "-m", "fulgurite", "--version", cwd=tmp_path).returncode == 0
    asked = run("-c", f"import fulgurite; fulgurite.{name}", cwd=tmp_path)
    assert "ShadowedPackageError" in asked.stderr
    assert f"hides the package '{name}'" in asked.stderr


def test_a_hidden_package_that_another_imports_is_named(tmp_path):
    (tmp_path / "spiking.py").write_text("")
    asked = run("-c", "import fulgurite; fulgurite.zoo", cwd=tmp_path)
    assert f"{tmp_path / 'spiking.py'} hides the package 'spiking'" in asked.stderr
    assert run("-c", "import fulgurite; fulgurite.datamodules", cwd=tmp_path).returncode == 0


def test_a_folder_of_no_package_hides_nothing(tmp_path):
    (tmp_path / "zoo").mkdir()  # Python prefers packages that have an __init__.py
    assert run("-m", "fulgurite", "--version", cwd=tmp_path).returncode == 0


def test_modules_beside_the_user_and_the_yaml_are_found_after_ours(tmp_path):
    (tmp_path / "deep").mkdir()
    (tmp_path / "my_net.py").write_text("")
    (tmp_path / "deep/my_data.py").write_text("")
    (tmp_path / "deep/run.yaml").write_text("a: 1\n")
    (tmp_path / "zoo.py").write_text("raise SystemExit('hidden')")
    code = (
        "import sys; from cli import main\n"
        "main._run = lambda words: None\n"
        "main.main(['fit', '--config', 'deep/run.yaml'])\n"
        "import my_net, my_data, zoo"
    )
    done = run("-P", "-c", code, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
