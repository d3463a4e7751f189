"""The task of USP-Gaussian: what each mode trains, resuming with other Gaussians, and what is refused."""

from __future__ import annotations

import json
import warnings

import lightning.pytorch as pl
import pytest
import torch

import datamodules
import zoo
from lightning_modules import ResumableState, SpikeReconstructionTask
from lightning_modules.scene_imaging import corrected_poses, exposures
from lightning_modules.scene_optimizer import HeldGradient, rates_of

NETWORK = {"sh_degree": 1, "knots_std": 1e-3, "recon_net": {"channels": [4, 8, 4, 4]}}
OFTEN = {"start": 2, "every": 2, "reset_every": 10, "gradient": 1e-7, "max_size": 10.0, "screen_max": 9.0}
OPTIONS = {"virtual_views": 5, "scale": 0.15, "opacity": 0.5, "knots_every": 1, "densification": False}


def scene(**kwargs):
    size = {"views": 2, "height": 12, "width": 12, "gaussians": 6}
    return datamodules.SyntheticSpikeSceneDataModule(**{**size, **kwargs})


def build(mode="joint", **kwargs):
    torch.manual_seed(0)
    given = {**OPTIONS, "model_args": NETWORK, **kwargs}
    return SpikeReconstructionTask(mode=mode, **given)


def trainer(folder, steps, *callbacks, **kwargs):
    options = {
        "accelerator": "cpu",
        "logger": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "enable_checkpointing": False,
        "limit_val_batches": 0,
        "callbacks": [ResumableState(), *callbacks],
    }
    warnings.filterwarnings("ignore", ".*does not have many workers.*|.*training batches.*|.*LeafSpec.*")
    return pl.Trainer(max_steps=steps, default_root_dir=folder, **{**options, **kwargs})


def fit(task, folder, steps, *callbacks, data=None, **kwargs):
    trainer(folder, steps, *callbacks, **kwargs).fit(task, datamodule=data or scene())
    return task


def moved(task, before):
    """Which parts of the network changed."""
    after = task.model.state_dict()
    names = {name for name, value in before.items() if not torch.equal(value, after[name])}
    return {name.split(".")[1] if name.startswith("gauss") else name.split(".")[0] for name in names}


class Note(pl.Callback):
    """Keeps the weights at the start, and a checkpoint after some step."""

    def __init__(self, path=None, step=0):
        self.path, self.step, self.before, self.counts = path, step, {}, []

    def on_train_start(self, trainer, pl_module):
        self.before = {k: v.clone() for k, v in pl_module.model.state_dict().items()}

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.counts.append(pl_module.model.num_gaussians)
        if trainer.global_step == self.step and self.path is not None:
            trainer.save_checkpoint(self.path)


GAUSSIANS = {"means", "quaternions", "log_scales", "opacity_logits", "base"}


@pytest.mark.parametrize(
    ("mode", "parts", "terms"),
    [
        ("joint", {*GAUSSIANS, "trajectory", "recon_net"}, {"gs", "recon", "joint"}),
        ("gs_only", {*GAUSSIANS, "trajectory"}, {"gs"}),
        ("recon_only", {"recon_net"}, {"recon"}),
        ("static", GAUSSIANS, {"gs"}),
    ],
)
def test_a_mode_trains_its_parts_on_its_losses(mode, parts, terms, tmp_path):
    note = Note()
    task = fit(build(mode), tmp_path, 2, note)
    assert moved(task, note.before) == parts
    batch = next(iter(task.trainer.datamodule.test_dataloader()))
    assert set(task.losses(exposures(batch)[0])) == terms
    made = task.eval()(exposures(batch)[0], task.frames)
    assert (made.rendered is not None) == ("gs" in terms)
    assert (made.reconstructed is not None) == ("recon" in terms)


def test_higher_harmonics_wait(tmp_path):
    note = Note()
    assert "rest" in moved(fit(build(degree_every=1), tmp_path, 2, note), note.before)


def test_knots_move_once_in_so_many_steps(tmp_path):
    note = Note()
    assert "trajectory" not in moved(fit(build(knots_every=3), tmp_path, 2, note), note.before)
    note = Note()
    assert "trajectory" in moved(fit(build(knots_every=3), tmp_path, 3, note), note.before)
    parameter = torch.nn.Parameter(torch.zeros(2))
    held = HeldGradient(parameter, 2)
    for step, given, want in ((1, 1.0, None), (2, 2.0, 3.0), (3, 4.0, None), (4, 8.0, 12.0)):
        parameter.grad = torch.full((2,), given)
        held.hold(parameter, step)
        assert (parameter.grad if want is None else parameter.grad.tolist()) == (
            None if want is None else [want, want]
        )


def test_a_resumed_run_ends_like_an_undisturbed_one(tmp_path):
    settings = {"densification": OFTEN, "knots_every": 3, "background": "random"}
    path, note = tmp_path / "middle.ckpt", Note(tmp_path / "middle.ckpt", step=7)
    whole = fit(build(**settings), tmp_path, 12, note)
    assert len(set(note.counts)) > 2, "the number of Gaussians must change before and after the checkpoint"
    stored = torch.load(path, weights_only=True)
    assert len(stored["state_dict"]["model.gaussians.means"]) == note.counts[6]
    again = build(**settings)
    trainer(tmp_path, 12).fit(again, datamodule=scene(), ckpt_path=path, weights_only=True)
    want, got = whole.state_dict(), again.state_dict()
    assert want.keys() == got.keys()
    for name, value in want.items():
        assert torch.equal(value, got[name]), name
    assert again.model.model_args["num_gaussians"] == again.model.num_gaussians == note.counts[-1]
    loaded = zoo.load(str(path))
    assert loaded.num_gaussians == note.counts[6]


def test_rates_fall_from_the_first_to_the_last(tmp_path):
    class Rates(pl.Callback):
        def __init__(self):
            self.seen = []

        def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
            self.seen.append({g["name"]: g["lr"] for g in trainer.optimizers[0].param_groups})

    task = fit(build(rates={"means": [1e-2, 1e-4], "base": 0.5}), tmp_path, 4, rates := Rates())
    means = [rate["means"] for rate in rates.seen]
    torch.testing.assert_close(torch.tensor(means), 1e-2 * torch.tensor(0.01) ** (torch.arange(4) / 4))
    assert {rate["base"] for rate in rates.seen} == {0.5}
    assert task.rates["knots"] == (1e-3, 1e-5)
    assert rates.seen[0]["quaternions"] == 1e-3
    assert task.trainer.optimizers[0].defaults["eps"] == 1e-15


def test_a_spiking_recon_net_learns_too(tmp_path):
    network = {**NETWORK, "recon_net": {"channels": [4, 8, 4, 4], "neuron": "lif", "time_steps": 2}}
    note = Note()
    task = fit(build(model_args=network), tmp_path, 2, note)
    assert "recon_net" in moved(task, note.before)
    assert task.model.takes_time_steps


def test_scores_of_all_kinds(tmp_path):
    task = build()
    run = trainer(tmp_path, 1, limit_val_batches=1)
    run.fit(task, datamodule=(data := scene()))
    scores = run.test(task, datamodule=data, verbose=False)[0]
    for kind in ("psnr", "psnr_sequence", "recon_psnr", "recon_psnr_sequence"):
        assert 0 < scores[f"test/{kind}"] < 60
        assert -1 <= scores[f"test/{kind.replace('psnr', 'ssim')}"] <= 1
    assert scores["test/short_tfp_psnr"] > 10
    assert scores["test/tfp_psnr"] > 5
    assert "val/loss" in run.callback_metrics or scores["test/loss"] > 0


def test_prediction_writes_a_scene(tmp_path):
    data = scene()
    task = fit(build(), tmp_path, 2, data=data)
    out = tmp_path / "scene"
    run = trainer(tmp_path, 1, *task.prediction_callbacks(out))
    run.predict(task, datamodule=data, return_predictions=False)
    for kind in ("rendered", "reconstructed"):
        folders = sorted((out / kind).iterdir())
        assert [f.name for f in folders] == sorted(data.scene.names)
        assert {len(list(f.glob("*.png"))) for f in folders} == {5}
        assert all(len(list(f.glob("*.gif"))) == 1 for f in folders)
    assert (out / "scene.ply").read_bytes().startswith(b"ply\n")
    poses = json.loads((out / "transforms.json").read_text())["frames"]
    want = corrected_poses(task.model, data.scene.camera_to_world)
    got = torch.tensor([frame["transform_matrix"] for frame in poses])
    torch.testing.assert_close(got.float(), want, atol=1e-5, rtol=0)
    with pytest.raises(ValueError, match="a scene has no tokens"):
        task.prediction_callbacks(out, explain="tokens")


def test_corrected_poses_are_those_of_the_middle(tmp_path):
    task = build(mode="gs_only")
    data = scene()
    data.setup()
    poses = data.scene.camera_to_world
    task.model.resize(3, len(poses))
    with torch.no_grad():
        task.model.trajectory.knots.zero_()
        task.model.trajectory.knots[1, :, 2] = 0.5
    found = corrected_poses(task.model, poses)
    torch.testing.assert_close(found[0], poses[0])
    torch.testing.assert_close(found[1, :3, 3], poses[1, :3, 3] + 0.5 * poses[1, :3, 2])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"model_args": {"rasterizer": "cuda"}},
            "rasterizer must be 'auto', 'torch' or 'gsplat', got 'cuda'",
        ),
        ({"mode": "both"}, "mode must be one of 'joint', 'gs_only', 'recon_only', 'static', got 'both'"),
        ({"background": "white"}, "background must be 'random' or 'black', got 'white'"),
        ({"opacity": 1.0}, r"opacity must lie in \(0, 1\)"),
        ({"knots_every": 0}, "knots_every must be at least 1, got 0"),
        ({"model": "usp_recon_net", "model_args": {}}, "model must be a scene such as 'usp_gaussian'"),
        ({"densification": {"evry": 3}}, "densification has no key 'evry'; did you mean 'every'"),
        ({"rates": {"mean": 1e-3}}, "rates has no part 'mean'; did you mean 'means'"),
        ({"rates": {"means": -1.0}}, "rates: means is a positive rate"),
    ],
)
def test_wrong_settings_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        build(**options)
    if "means" in (options.get("rates") or {}):
        with pytest.raises(ValueError, match="positive rate"):
            rates_of({"means": [1.0, 2.0, 3.0]})


def test_a_rasterizer_that_cannot_run_here_is_refused_before_anything_is_done(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'fulgurite\[splat\]'"):
        build(model_args={**NETWORK, "rasterizer": "gsplat"})


def test_data_that_make_no_scene_are_refused(tmp_path):
    with pytest.raises(ValueError, match="the data have no scene; those of SyntheticSpikeSceneDataModule"):
        fit(build(), tmp_path, 1, data=datamodules.SyntheticDataModule(image_size=8))
    one = scene()
    one.setup()
    views = one.scene
    for name in ("camera_to_world", "names"):
        object.__setattr__(views, name, getattr(views, name)[:1])
    with pytest.raises(ValueError, match="the scene has 1 view, and depth shows in two"):
        fit(build(), tmp_path, 1, data=one)


def test_a_checkpoint_of_other_views_is_refused(tmp_path):
    path = tmp_path / "two.ckpt"
    fit(build(), tmp_path, 1, Note(path, step=1))
    with pytest.raises(ValueError, match="the checkpoint is of a scene with 2 views, the data have 3"):
        trainer(tmp_path, 1).test(build(), datamodule=scene(views=3), ckpt_path=path, weights_only=True)


def test_no_gaussians_left_ends_the_run_in_words(tmp_path):
    path = tmp_path / "kept.ckpt"
    harsh = {**OFTEN, "min_opacity": 0.499}
    with pytest.raises(RuntimeError, match="no Gaussians are left at step"):
        fit(build(densification=harsh, opacity=0.1), tmp_path, 20, Note(path, step=5))
    assert torch.load(path, weights_only=True)["global_step"] == 5
