"""What a training of an agent changes when, what it logs and leaves behind, and what it refuses."""

import copy
import json
from types import SimpleNamespace

import pytest
import torch

import lightning_modules
import zoo
from cli.main import main
from lightning_modules import ProxyTargetTask
from lightning_modules.callbacks.episode_film import EpisodeFilm
from lightning_modules.td3 import update

pytest.importorskip("gymnasium")
SMALL = {"proxy_hidden": (8, 8), "critic_hidden": (8, 8), "model_args": {"hidden": (8, 8)}}


def task(**options):
    torch.manual_seed(0)
    return ProxyTargetTask("proxy_target_lif", obs_dim=3, act_dim=2, act_limit=2.0, **{**SMALL, **options})


def batch(count=16):
    return SimpleNamespace(
        observation=torch.randn(count, 3),
        action=torch.rand(count, 2) * 4 - 2,
        next_observation=torch.randn(count, 3),
        reward=torch.randn(count, 1),
        not_done=torch.ones(count, 1),
    )


def learn(agent, calls, first=1, **changed):
    optimizers = dict(zip(("actor", "critic", "proxy"), agent.configure_optimizers(), strict=False))
    for call in range(first, first + calls):
        one = batch()
        vars(one).update(changed)
        update(agent.networks, agent.rule, [one], torch.randn(16, 2), optimizers, call)


def changed(agent, before):
    parts = ("model", "target_actor", "critics", "target_critics")
    now = agent.state_dict()
    return {
        part
        for part in parts
        if any(not torch.equal(now[k], before[k]) for k in now if k.startswith(part + "."))
    }


def test_what_each_call_changes():
    agent = task()
    start = copy.deepcopy(agent.state_dict())
    learn(agent, 1)
    assert changed(agent, start) == {"target_actor", "critics"}
    learn(agent, 1, first=2)
    assert changed(agent, start) == {"target_actor", "critics", "model", "target_critics"}


def test_a_moving_average_waits_for_the_actor():
    agent = task(target="polyak")
    assert len(agent.configure_optimizers()) == 2
    start = copy.deepcopy(agent.state_dict())
    learn(agent, 1)
    assert changed(agent, start) == {"critics"}
    learn(agent, 1, first=2)
    assert changed(agent, start) == {"target_actor", "critics", "model", "target_critics"}
    mean = "target_actor.encoder.mean"  # of the encoder, too
    moved = agent.state_dict()["model.encoder.mean"] - start["model.encoder.mean"]
    torch.testing.assert_close(agent.state_dict()[mean] - start[mean], 0.005 * moved, atol=1e-7, rtol=1e-2)


def test_an_end_cuts_the_future_off():
    rewards, losses = torch.zeros(16, 1), []
    for not_done in (torch.zeros(16, 1), torch.ones(16, 1)):
        agent = task()
        for critic in (agent.critics, agent.target_critics):
            for parameter in critic.parameters():
                parameter.data.zero_()
        agent.target_critics.first[-1].bias.data.fill_(10.0)
        agent.target_critics.second[-1].bias.data.fill_(8.0)
        learn(agent, 1, reward=rewards, not_done=not_done)
        losses.append(agent.critics.first[-1].bias.item())
    assert losses[0] == 0.0  # nothing to learn: the target is the reward
    assert losses[1] > 0.0  # towards 0.99 times the smaller value


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"target": "mean"}, "target must be 'proxy' or 'polyak', got 'mean'"),
        ({"proxy_steps": 0}, "proxy_steps must be at least 1, got 0"),
        ({"tau": 1.5}, r"tau must lie in \[0, 1\], got 1.5"),
        ({"exploration_noise": -0.1}, "exploration_noise must be at least 0"),
        ({"policy_delay": 0}, "policy_delay must be at least 1"),
    ],
)
def test_numbers_out_of_range(options, message):
    with pytest.raises(ValueError, match=message):
        task(**options)


def test_observations_of_another_size():
    with pytest.raises(ValueError, match=r"observations must be \[B, 3\] .* got \[7, 4\]"):
        task()(torch.randn(7, 4))


def test_films_have_a_known_suffix(tmp_path):
    assert lightning_modules.ProxyTargetTask.output == "episode.gif"
    with pytest.raises(ValueError, match=r"\.gif or \.mp4"):
        EpisodeFilm(tmp_path / "episode.avi")


CONFIG = """\
# A run of a second.
seed_everything: 1
test_after_fit: true
model:
  class_path: ProxyTargetTask
  init_args:
    model: proxy_target_lif
    model_args: {hidden: [8, 8]}
    proxy_hidden: [8, 8]
    critic_hidden: [8, 8]
    random_steps: 4
data:
  class_path: ControlDataModule
  init_args: {env: InvertedDoublePendulum-v4, steps_per_epoch: 10, eval_episodes: 2, batch_size: 4}
trainer:
  max_epochs: 2
  accelerator: cpu
  enable_progress_bar: false
  log_every_n_steps: 1
  callbacks:
    - class_path: FiringRate
    - class_path: Energy
      init_args: {paper_pj_per_mac: 3.97, paper_pj_per_sop: 0.077}
    - class_path: RunReport
"""


def test_a_run_is_an_agent_of_the_zoo(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "swing" / "up.yaml"
    path.parent.mkdir()
    path.write_text(CONFIG)
    main(["fit", "--config", str(path)])
    told = " ".join(capsys.readouterr().out.split())
    assert "energy at the paper's constants" in told
    assert "mean length of an episode" in told
    run = tmp_path / "runs" / "swing-up"
    report = json.loads((run / "report.json").read_text())
    assert report["training"]["method"] == "TD3 with a proxy target (arXiv 2505.24161)"
    metrics = report["metrics"]
    macs, sops = 0.0, metrics["test/sops"]
    ours = metrics["test/energy_mj"] * 1e9
    macs = (ours - 0.9 * sops) / 4.6
    assert metrics["test/paper_energy_mj"] * 1e9 == pytest.approx(3.97 * macs + 0.077 * sops, rel=1e-4)
    main(["publish", str(run), "--repo-id", "someone/agent", "--licence", "mit", "--dry-run"])
    out = run / "hub"
    agent = zoo.load(f"local-dir:{out}")
    assert zoo.task_of(agent).name == "control"
    assert not [key for key in agent.state_dict() if "critic" in key or "target" in key]
    observations = torch.randn(5, 11)
    assert torch.equal(agent(observations), agent(observations))
    stored = torch.load(run / "checkpoints" / "best.ckpt", weights_only=True)["state_dict"]
    assert torch.equal(agent.state_dict()["decoder.weight"], stored["model.decoder.weight"])
    card = (out / "README.md").read_text()
    for text in (
        "trained on InvertedDoublePendulum-v4",
        "| Observation | D = 11 |",
        "| Action | A = 1, each in [-1, 1] |",
        "On 2 test episodes of InvertedDoublePendulum-v4.",
        f"| mean return of an episode | {metrics['test/return']:.6g} |",
        f"| standard deviation of the return over episodes | {metrics['test/return_std']:.6g} |",
        f"| energy | {metrics['test/energy_mj'] * 1e6:.6g} nJ per decision |",
        f"| energy at the paper's constants | {metrics['test/paper_energy_mj'] * 1e6:.6g} nJ per decision |",
        "The paper's constants: 3.97 pJ a MAC, 0.077 pJ a synaptic operation.",
        "| Seed | 1 |",
        "| Weights | mit |",
        "| Data | InvertedDoublePendulum-v4, licence: MIT, an environment of gymnasium |",
    ):
        assert text in card, text
    assert "sample" not in card.split("## Licences")[0].split("---", 2)[2]
