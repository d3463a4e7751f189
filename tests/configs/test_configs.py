"""Every shipped run is parsed as it stands, and trained for one step on tiny made-up data."""

import contextlib
import io
import json
from pathlib import Path

import pytest
import torch
import yaml

import datamodules
import zoo
from cli.main import main
from tests.configs.kinds import one_of_each

ROOT = Path(__file__).resolve().parents[2]
CONFIGS = sorted(p for p in (ROOT / "configs").rglob("*.yaml") if p.parent.name != "conversion")
SIZES = {224: 64, 128: 64}  # large images are made smaller, the network stays what it is
COUNTED = {datamodules.ImageNetDataModule: 1000, datamodules.TinyImageNetDataModule: 200}
SYSTEMS = ("proxy_target", "up_diff", "usp_gaussian", "emu3_5")  # each has a file of its own beside this
OTHERS = ("regression", "segmentation", "multi_label")  # these have one, too: test_other_targets.py
CLASSIFIERS = [p for p in CONFIGS if p.parent.name not in (*SYSTEMS, *OTHERS)]
# Run by `make slow`: these are large, or for 100 classes in place of 10.
LARGE = ("imagenet_", "transfer", "vgg16", "dvs_", "_dvs", "cifar100")


def name(path: Path) -> str:
    return f"{path.parent.name}/{path.stem}"


def is_large(path: Path) -> bool:
    return any(word in path.stem for word in LARGE)


def marked(path: Path):
    return pytest.param(path, id=name(path), marks=[pytest.mark.slow] if is_large(path) else [])


def trained(config: dict) -> dict:
    """What decides on the code that a step runs: not which values options have, nor how many classes."""
    text = json.dumps({"model": config["model"], "data": config["data"], "trainer": [*config["trainer"]]})
    return json.loads(text.replace("cifar100", "cifar10").replace("CIFAR100", "CIFAR10"))


def shrunk(config: dict) -> dict:
    """The same run on four images: data, length and hardware change, model and method do not."""
    data = config["data"]
    cls = getattr(datamodules, data["class_path"])
    options = {k: v for k, v in data.get("init_args", {}).items() if k not in ("root", "folder")}
    if cls in COUNTED:  # counts the classes in its folder
        classes, channels, height = COUNTED[cls], 3, options["image_size"]
    else:
        probe = cls(**options)
        classes, (channels, height, _) = probe.num_classes, probe.input_size
    tiny = {
        "num_classes": classes,
        "in_chans": channels,
        "image_size": SIZES.get(height, height),
        "batch_size": 2,
        "train_samples": 4,
        "val_samples": 2,
        "test_samples": 2,
        "num_workers": 0,
    }
    if issubclass(cls, datamodules.EventDataModule):
        fixed = config["model"]["init_args"]["model"].startswith("lmht_")  # by the neurons' parameters
        steps = options["time_steps"] if fixed else min(4, options["time_steps"])
        return made_up(config, {**tiny, "kind": "events", "time_steps": steps})
    for key in ("crop_padding", "flip", "auto_augment", "cutout", "random_erasing", "erasing_mode"):
        if key in options:
            tiny[key] = options[key]
    return made_up(config, tiny)


def made_up(config: dict, tiny: dict) -> dict:
    """The run on made-up data, for one step."""
    trainer = {k: v for k, v in config["trainer"].items() if k not in ("precision", "max_time", "devices")}
    trainer |= {"max_epochs": 1, "limit_train_batches": 1, "limit_val_batches": 1, "limit_test_batches": 1}
    trainer |= {"accelerator": "cpu", "devices": 1, "sync_batchnorm": False, "enable_progress_bar": False}
    trainer |= {"num_sanity_val_steps": 0, "log_every_n_steps": 1, "enable_checkpointing": False}
    changed = {**config, "trainer": trainer, "test_after_fit": False}
    changed["data"] = {"class_path": "SyntheticDataModule", "init_args": tiny}
    return changed


def leave_run(folder: str, data: dict) -> None:
    """What the run of a shipped file would leave behind, with random weights."""
    path = ROOT / "configs" / f"{Path(folder).name.replace('-', '/', 1)}.yaml"
    settings = yaml.safe_load(path.read_text(encoding="utf-8"))["model"]["init_args"]
    hyper = {k: settings[k] for k in ("model", "model_args")}
    hyper |= {k: data[k] for k in ("num_classes", "in_chans")}
    arguments = {k: hyper[k] for k in ("num_classes", "in_chans")} | hyper["model_args"]
    state = zoo.create(hyper["model"], **arguments).state_dict()
    target = Path(folder) / "checkpoints" / "best.ckpt"
    target.parent.mkdir(parents=True)
    state = {f"model.{k}": v for k, v in state.items()}
    torch.save({"pytorch-lightning_version": "2.6", "state_dict": state, "hyper_parameters": hyper}, target)


@pytest.mark.parametrize("path", CONFIGS, ids=name)
def test_parses_as_it_stands(path, monkeypatch):
    monkeypatch.chdir(ROOT)
    text = path.read_text(encoding="utf-8")
    assert text.startswith("# ")
    comment = text.split("\n\n")[0].split("\nseed_everything")[0]
    assert "Published:" in comment, "the first comment names the published number"
    assert "Ours:" in comment, "and what we measured"
    assert "Hardware:" in comment
    out = io.StringIO()
    with contextlib.redirect_stdout(out), pytest.raises(SystemExit) as ended:
        main(["fit", "--config", str(path), "--print_config"])
    assert ended.value.code in (0, None)
    parsed, written = yaml.safe_load(out.getvalue()), yaml.safe_load(text)
    for part in ("model", "data"):
        got = parsed[part]["init_args"]
        for key, value in written[part]["init_args"].items():
            assert value.items() <= got[key].items() if key == "source" else got[key] == value, key


CASES = one_of_each(sorted(CLASSIFIERS, key=is_large), trained)


@pytest.mark.parametrize("path", [marked(p) for p in CASES])
def test_trains_for_a_step(path, tmp_path, monkeypatch):
    config = shrunk(yaml.safe_load(path.read_text(encoding="utf-8")))
    monkeypatch.chdir(tmp_path)
    options = config["model"]["init_args"]
    arguments = options.get("model_args", {})
    if "source" in options:
        leave_run(options["source"]["model"], config["data"]["init_args"])
    if arguments.get("weights", "").startswith("runs/"):
        leave_run(arguments["weights"].partition("/checkpoints/")[0], config["data"]["init_args"])
    elif "weights" in arguments:
        source = zoo.create(config["model"]["init_args"]["model"])  # stands for the authors' file
        Path(arguments["weights"]).parent.mkdir(parents=True)
        torch.save({"model": source.state_dict()}, arguments["weights"])
    if "hybrid" in arguments:
        leave_run(arguments["hybrid"]["source"], config["data"]["init_args"])
    copy = tmp_path / path.parent.name / path.name
    copy.parent.mkdir()
    copy.write_text(yaml.safe_dump(config))
    main(["fit", "--config", str(copy)])
    table = (tmp_path / "runs" / f"{path.parent.name}-{path.stem}" / "metrics.csv").read_text()
    assert "train/loss" in table
    assert "nan" not in table
