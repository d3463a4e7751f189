"""Configurations of the package are found by name, and files of the user come first."""

from pathlib import Path

import pytest

from cli import main, shipped_configs

CONFIGS = Path(__file__).resolve().parents[2] / "configs"


@pytest.mark.parametrize("name", ["stbp/mnist5k", "stbp/mnist5k.yaml", "configs/stbp/mnist5k.yaml"])
@pytest.mark.parametrize("form", ["{option} {name}", "{option}={name}"])
@pytest.mark.parametrize("option", ["--config", "-c"])
def test_a_name_becomes_the_shipped_file(name, form, option, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words = ["fit", *form.format(option=option, name=name).split(), "--trainer.max_epochs", "1"]
    expected = form.format(option=option, name=CONFIGS / "stbp" / "mnist5k.yaml").split()
    assert shipped_configs.resolve_configs(words) == ["fit", *expected, "--trainer.max_epochs", "1"]


def test_a_file_of_the_user_comes_first(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("configs/stbp").mkdir(parents=True)
    Path("configs/stbp/mnist5k.yaml").write_text("a: 1\n")
    words = ["fit", "--config", "configs/stbp/mnist5k.yaml"]
    assert shipped_configs.resolve_configs(words) == words


@pytest.mark.parametrize("value", ["stbp/nothing", "../pyproject", "{model: a}", "stbp"])
def test_other_words_stay_as_they_are(value, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert shipped_configs.resolve_configs(["fit", "--config", value]) == ["fit", "--config", value]


def test_every_configuration_has_a_name():
    names = shipped_configs.shipped_names()
    assert len(names) == len(list(CONFIGS.rglob("*.yaml")))
    assert all(shipped_configs.find_config(name).is_file() for name in names)


def test_a_slip_of_the_pen_is_answered_by_the_nearest_name(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit):
        main.main(["fit", "--config", "stbp/mnist5"])
    assert "did you mean stbp/mnist5k?" in capsys.readouterr().err
