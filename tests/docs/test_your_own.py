"""The page on one's own network, neuron and data, as a reader would follow it."""

import csv
import json
import re
import shlex
import sys
from pathlib import Path

import pytest
import torch

import zoo
from cli.main import main
from spiking import neurons

PAGE = (Path(__file__).resolve().parents[2] / "docs/your_own.md").read_text()
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```", PAGE, re.M | re.S)
QUIET = ["--trainer.enable_progress_bar", "false", "--trainer.accelerator", "cpu"]


@pytest.fixture(scope="module", autouse=True)
def reader(tmp_path_factory):
    """A folder with the files of the page; left again with what was imported from it, and registered."""
    place = tmp_path_factory.mktemp("own")
    names = []
    for _, text in BLOCKS:
        if found := re.match(r"# ([\w.]+)\n", text):
            (place / found[1]).write_text(text)
            names.append(found[1])
    before = list(sys.path)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        patch.setattr(neurons, "NEURONS", dict(neurons.NEURONS))
        yield names
    sys.path[:] = before
    for name in names:
        sys.modules.pop(name.removesuffix(".py"), None)


def commands():
    lines = [line for kind, text in BLOCKS if kind == "bash" for line in text.splitlines()]
    return [shlex.split(line, comments=True) for line in lines]


def typed(*start):
    """The one command of the page that begins so."""
    (found,) = [words for words in commands() if words[1 : 1 + len(start)] == list(start)]
    return found[1:]


def test_each_file_is_short(reader):
    names = ["my_net.py", "own.yaml", "my_adaptive.py", "my_neuron.py"]
    assert reader == [*names, "my_data.py", "bars.yaml", "my_module.py"]
    for name in reader:
        assert len(Path(name).read_text().splitlines()) <= 20, name


def test_a_network_of_one_s_own_is_trained_published_and_loaded_back(capsys):
    main([*typed("fit", "--config", "own.yaml", "--name", "own"), *QUIET])
    metrics = json.loads(Path("runs/own/report.json").read_text())["metrics"]
    assert metrics["test/acc1"] > 0.5  # chance is 0.1
    assert {"test/acc1_t1", "test/acc1_t4", "test/firing_rate", "test/energy_mj"} <= set(metrics)
    main(typed("predict"))
    with open("predictions.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    right = sum(row["label"] == row["true_label"] for row in rows) / len(rows)
    assert right == pytest.approx(metrics["test/acc1"], abs=0.01)
    main(typed("publish"))
    assert "Net" in Path("runs/own/hub/README.md").read_text()
    x = torch.rand(3, 1, 8, 8)
    trained, published = zoo.load("runs/own"), zoo.load("runs/own/hub")
    assert torch.equal(trained(x), published(x))
    assert published(x, steps=True).shape == (4, 3, 10)
    assert published.label_names == list("0123456789")


def test_a_description_from_elsewhere_imports_nothing(tmp_path, monkeypatch):
    monkeypatch.delitem(sys.modules, "my_net", raising=False)
    here = Path.cwd()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match="import my_net first"):
        zoo.load(str(here / "runs/own/hub"))
    assert "my_net" not in sys.modules


@pytest.mark.parametrize(("name", "kind"), [("noisy", "Noisy"), ("adaptive", "Adaptive")])
def test_a_neuron_of_one_s_own(name, kind):
    main([*typed("fit", "--config", "own.yaml", "--name", name), *QUIET, "--trainer.max_epochs", "1"])
    kinds = {type(module).__name__ for module in zoo.load(name).modules()}
    assert kind in kinds


def test_a_written_step_is_a_kernel(monkeypatch):
    monkeypatch.syspath_prepend(Path.cwd())
    import my_adaptive

    x = 4.0 * torch.rand(4, 8, 100)
    neuron, lines = (my_adaptive.Adaptive(surrogate="atan", backend=b) for b in ("cpu", "reference"))
    assert 0 < lines(x).mean() < 1
    assert torch.equal(neuron(x), lines(x))


def test_a_neuron_goes_into_networks_of_the_zoo():
    words = [*typed("fit", "--config", "stbp/digits"), "--name", "n2", "--trainer.fast_dev_run", "1", *QUIET]
    main(words)


def test_data_of_one_s_own():
    main(["fit", "--config", "bars.yaml", "--name", "bars", *QUIET])
    network = zoo.load("bars")
    assert network.label_names == ["upright", "flat"]
    assert zoo.transform(network).input_size == (1, 8, 16)
    main([*typed("fit", "--config", "own.yaml", "--name", "squares"), *QUIET])
    assert zoo.load("squares").num_classes == 2
