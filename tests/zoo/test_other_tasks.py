"""An entry that is no image classifier is named, built, described, saved, published and loaded alike."""

from __future__ import annotations

import json

import pytest
import timm
import torch
from huggingface_hub import ModelCard
from torch import nn

import spiking
import zoo
from cli.main import main
from tests.zoo.hub.conftest import client, hub
from zoo import registry

__all__ = ["client", "hub"]  # fixtures


class Agent(zoo.ZooModel):
    """Observations ``[B, D]`` -> action values ``[B, A]``: one layer of neurons over T steps."""

    recorded = ("time_steps",)
    takes_time_steps = True

    def __init__(self, observation_size: int = 4, action_size: int = 2, time_steps: int = 5) -> None:
        super().__init__()
        self.time_steps = time_steps
        self.encode = nn.Linear(observation_size, 8)
        self.neuron = spiking.LIF(tau=2.0)
        self.decode = nn.Linear(8, action_size)

    def forward(self, observations: torch.Tensor) -> torch.Tensor:
        currents = self.encode(observations).expand(self.time_steps, -1, -1)
        return self.decode(self.neuron(currents)).mean(0)


@pytest.fixture
def agent(monkeypatch):
    """The entry ``toy_agent``, for the length of a test."""

    def toy_agent(**kwargs):
        """An agent for a cart with a pole."""
        return zoo.build_model(Agent, "toy_agent", {}, **kwargs)

    monkeypatch.setattr(registry, "_ENTRIES", dict(registry._ENTRIES))
    zoo.register_model(task="control", paper="1201.00001", cfg={"observation_size": 4, "action_size": 2})(
        toy_agent
    )
    torch.manual_seed(0)
    return zoo.create("toy_agent", action_size=3).eval()


FACTS = {
    "metrics": {"test/return": 481.5, "test/return_t1": 40.25, "test/energy_mj": 2e-6},
    "dataset": "CartPole-v1",
    "method": "proxy target",
    "seed": 3,
}
FORBIDDEN = ("image", "class", "accuracy", "top-1", "timm", "K =", "preprocess")


def test_it_is_listed_and_described(agent, capsys):
    assert "toy_agent" in zoo.list_models(task="control")
    assert "toy_agent" not in zoo.list_models(task="classification")
    assert zoo.task_of(agent).name == "control"
    told = zoo.describe("toy-agent")
    assert (told.task, told.time_steps, told.spiking) == ("control", 5, True)
    assert (told.num_classes, told.input_size, told.macs) == (None, None, None)
    assert told.parameters == 4 * 8 + 8 + 8 * 2 + 2
    text = str(told)
    assert "observation size 4" in " ".join(text.split())
    assert "control" in text
    assert "classes" not in text
    main(["models", "toy_agent"])
    out = capsys.readouterr().out
    assert "toy_agent" in out
    assert "1201.00001" in out
    main(["models", "*", "--task", "control"])
    assert "toy_agent" in capsys.readouterr().out
    main(["models", "*_*"])
    assert "task" in capsys.readouterr().out.splitlines()[0]  # several tasks: a column says which


def test_timm_does_not_hear_of_it(agent):
    assert not timm.is_model("toy_agent")
    with pytest.raises(ValueError, match=r"unknown task 'controll'; did you mean 'control'\? known: classif"):
        zoo.register_model(task="controll")(lambda **kwargs: None)


def test_its_folder(agent, tmp_path):
    folder = zoo.save(agent, tmp_path / "out", zoo.Provenance(**FACTS), licence="mit")
    config = json.loads((folder / "config.json").read_text())
    assert "num_classes" not in config
    assert config["model_args"] == {"action_size": 3, "time_steps": 5}
    own = config["fulgurite"]
    assert (own["schema"], own["task"], own["time_steps"]) == (2, "control", 5)
    again = zoo.load(f"local-dir:{folder}")
    observations = torch.randn(7, 4)
    assert torch.equal(again(observations), agent(observations))
    assert zoo.load(f"local-dir:{folder}", time_steps=2).time_steps == 2
    with pytest.raises(ValueError, match="2 label names for K = None"):
        zoo.save(agent, folder, label_names=["left", "right"])


def test_its_card(agent, tmp_path):
    folder = zoo.save(agent, tmp_path / "out", **FACTS)
    text = (folder / "README.md").read_text()
    card = ModelCard(text)
    assert card.data.pipeline_tag == "reinforcement-learning"
    assert card.data.tags == ["spiking-neural-network", "reinforcement-learning", "arxiv:1201.00001"]
    assert card.data.metrics == ["mean_reward"]
    values = {r.metric_name: r.metric_value for r in card.data.eval_results}
    assert values["mean return of an episode, T = 5"] == 481.5
    assert values["mean return of an episode after 1 of 5 steps"] == 40.25
    for told in (
        "A spiking agent (toy_agent), trained on CartPole-v1.",
        "actions = model(observations)",
        "In CartPole-v1.",
        "| Observation size | 4 |",
        "mean return of an episode | 481.5",
        "its return in other environments is unknown",
        "more or fewer steps change the return",
    ):
        assert told in text, told
    assert not [word for word in FORBIDDEN if word in text]


def test_it_is_published_and_comes_back(agent, hub, client):
    zoo.push(agent, "me/agent", **FACTS)
    again = zoo.load("hf-hub:me/agent")
    assert again.architecture == "toy_agent"
    assert all(torch.equal(v, again.state_dict()[k]) for k, v in agent.state_dict().items())
    observations = torch.randn(7, 4)
    assert torch.equal(again(observations), agent(observations))
    card = hub.files("me/agent")["README.md"].decode()
    assert 'model = zoo.load("hf-hub:me/agent")' in card
    assert not [word for word in FORBIDDEN if word in card]
    assert zoo.push(again, "me/copy", licence="mit").repo_id == "me/copy"


def test_its_weights_are_found_by_name(agent, tmp_path, monkeypatch, capsys):
    zoo.save(agent, tmp_path / "toy_agent.mine", **FACTS)
    monkeypatch.setenv("FULGURITE_WEIGHTS", str(tmp_path))
    assert torch.equal(zoo.load("toy_agent").decode.weight, agent.decode.weight)
    assert "return 481.5" in str(zoo.describe("toy_agent"))
    main(["models", "toy_agent"])
    assert "mine (481.5)" in capsys.readouterr().out


def test_the_demo_page_refuses_it_in_one_line(agent, tmp_path, capsys):
    pytest.importorskip("gradio")
    folder = zoo.save(agent, tmp_path / "out")
    with pytest.raises(SystemExit):
        main(["demo", f"local-dir:{folder}"])
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1
    shown = "the page shows networks for classification, image-to-image, language only"
    assert f"local-dir:{folder} is an agent (control); {shown}" in lines[0]


def test_a_task_of_ones_own(monkeypatch):
    from zoo import tasks

    monkeypatch.setattr(tasks, "_TASKS", dict(tasks._TASKS))
    grasp = zoo.Task(
        name="grasp",
        noun="gripper",
        pipeline_tag="robotics",
        metrics={"success": zoo.Metric(label="grasps that hold", share=True)},
        headline="success",
        call="grip = model(scene)",
    )
    assert zoo.register_task(grasp) is grasp
    assert zoo.get_task("grasp") == grasp
    assert "grasp" in zoo.list_tasks()
    with pytest.raises(ValueError, match="there is a task 'control' already"):
        zoo.register_task(zoo.Task(**{**vars(grasp), "name": "control"}))


# -- descriptions ----------------------------------------------------------------------------------


def test_folders_without_a_version_still_load(agent, tmp_path):
    folder = zoo.save(zoo.create("spiking_cnn_nano"), tmp_path / "out")
    config = json.loads((folder / "config.json").read_text())
    for key in ("schema", "task"):
        del config["fulgurite"][key]
    config["fulgurite"]["mood"] = "calm"
    config["colour"] = "blue"
    (folder / "config.json").write_text(json.dumps(config))
    assert zoo.load(f"local-dir:{folder}").num_classes == 10
    described = zoo.files.description.read_description(folder)
    assert described.recorded.task == "classification"
    kept = described.to_dict()
    assert (kept["colour"], kept["fulgurite"]["mood"], kept["fulgurite"]["schema"]) == ("blue", "calm", 2)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model_args": [1]}, r"'model_args' is a list, expected Mapping"),
        ({"num_classes": "ten"}, r"'num_classes' is a str, expected int"),
        ({"num_classes": True}, r"'num_classes' is a bool"),
        ({"fulgurite": 3}, r"'fulgurite' is no mapping"),
        ({"fulgurite": {"metrics": {"test/acc1": "high"}}}, r"metrics 'test/acc1' is no number"),
        ({"fulgurite": {"sha256": 7}}, r"'sha256' is a int"),
        ({"fulgurite": {"origin": "me"}}, r"'origin' is a str"),
        ({"fulgurite": {"schema": 3}}, r"has schema 3, this version reads up to 2: pip install -U fulgurite"),
    ],
)
def test_values_of_another_type_are_refused_in_words(change, message, tmp_path):
    folder = zoo.save(zoo.create("spiking_cnn_nano"), tmp_path / "out")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **change}))
    with pytest.raises(zoo.CheckpointError, match=message):
        zoo.load(f"local-dir:{folder}")


def test_a_fact_that_nobody_asked_for(tmp_path):
    with pytest.raises(TypeError, match=r"zoo.save has no argument 'license'; did you mean 'licence'\?"):
        zoo.save(zoo.create("spiking_cnn_nano"), tmp_path / "out", license="mit")
    assert not (tmp_path / "out").exists()
