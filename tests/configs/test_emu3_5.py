"""The runs of Emu3.5 train for a step as they stand, and outlive the runs that they began with."""

import json
import shutil
from pathlib import Path

import pytest
import torch
import yaml

import zoo
from cli.main import main
from cli.run.package import export_run
from lightning_modules import DiDATask

pytest.importorskip("transformers")
ROOT = Path(__file__).resolve().parents[2] / "configs" / "emu3_5"
SHORT = {
    "max_epochs": 1,
    "limit_train_batches": 1,
    "limit_val_batches": 1,
    "limit_test_batches": 1,
    "enable_progress_bar": False,
    "num_sanity_val_steps": 0,
    "log_every_n_steps": 1,
}
SMALL = {"layers": 1, "width": 16, "ffn": 24, "heads": 2, "kv_heads": 1, "head_dim": 8}


def fit(name):
    """The run's folder after a step, and the file that it was started from."""
    config = yaml.safe_load((ROOT / f"{name}.yaml").read_text(encoding="utf-8"))
    settings, data = config["model"]["init_args"], config["data"]["init_args"]
    config["trainer"] |= SHORT
    data |= {"batch_size": 2, "eval_batch_size": 2}
    if settings["model"] == "emu3_5_tiny":
        settings["score_samples"] = 2
        settings["model_args"] = SMALL | settings.get("model_args", {})
        data["prompts"] = ["digit 3"]
    config["test_after_fit"] = False
    copy = Path("emu3_5") / f"{name}.yaml"
    copy.parent.mkdir(exist_ok=True)
    copy.write_text(yaml.safe_dump(config))
    main(["fit", "--config", str(copy)])
    run = Path("runs") / f"emu3_5-{name}"
    table = (run / "metrics.csv").read_text()
    assert "train/loss" in table
    assert "nan" not in table
    return run, copy


SERIES = [
    pytest.param(["digits_ar", "digits_dida"], id="digits"),
    pytest.param(["digits_pairs_ar", "digits_pairs_dida"], id="digits_pairs", marks=pytest.mark.slow),
    pytest.param(["ibq_mnist5k", "mnist5k_ar", "mnist5k_dida"], id="mnist5k", marks=pytest.mark.slow),
]


@pytest.mark.parametrize("names", SERIES)
def test_a_model_is_trained_and_adapted_and_needs_no_earlier_run(names, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    *_, (run, copy) = [fit(name) for name in names]
    for name in names[:-1]:
        shutil.rmtree(tmp_path / "runs" / f"emu3_5-{name}")
    with pytest.raises(SystemExit):  # in words: the run that is to be adapted is not there
        main(["fit", "--config", str(copy)])
    best, config = run / "checkpoints" / "best.ckpt", str(run / "config.yaml")
    weights = torch.load(best, weights_only=True)["state_dict"]
    again = DiDATask.load_from_checkpoint(best, weights_only=True)
    assert again.state_dict().keys() == weights.keys()
    assert all(torch.equal(value, weights[key]) for key, value in again.state_dict().items())
    alone = zoo.load(str(best))
    assert alone.noise == {"path": "metric", "c": 3.0, "alpha": 0.9}
    assert alone.grid == list(again.grid)
    main(["test", "--config", config, "--ckpt_path", str(best)])
    main(["predict", "--config", config, "--ckpt_path", str(best), "--output", "told"])
    assert {path.name for path in Path("told").glob("*.json")} == {"0000_ar.json", "0000_dida.json"}
    published = zoo.load(f"local-dir:{export_run(run, run / 'hub', licence='mit')}")
    assert (published.noise, published.grid) == (alone.noise, alone.grid)
    main(["fit", "--config", config, "--ckpt_path", "last", "--trainer.max_epochs", "2"])
    assert "weights: runs/" in (run / "config.yaml").read_text()  # what is written down is what was asked for


def test_documents_are_packed_and_prompts_are_continued(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    short = [f"--trainer.{name}={value}" for name, value in SHORT.items()]
    few = ["--data.init_args.batch_size=8", "--data.init_args.eval_batch_size=8", "--test_after_fit=false"]
    config = str(ROOT / "digits_packed_ar.yaml")
    few += ["--model.init_args.model_args={context: 240, layers: 1}", "--data.init_args.pack_length=240"]
    main(["fit", "--config", config, *short, *few])
    last = Path("runs/emu3_5-digits_packed_ar/checkpoints/last.ckpt")
    assert torch.load(last, weights_only=True)["hyper_parameters"]["pack_length"] == 240

    asked = ["predict", "--config", config, *few[3:], "--trainer.enable_progress_bar=false"]
    Path("prompts.txt").write_text("digit 3\n\n digit 8 digit\n")
    main([*asked, "--ckpt_path", "last", "--data.prompt_file", "prompts.txt"])
    told = [json.loads(path.read_text()) for path in sorted(Path("writings").glob("*.json"))]
    assert [one["prompt"] for one in told] == ["digit 3", "digit 8 digit"]
    assert Path("writings/index.html").is_file()

    wrong = ["--ckpt_path", "last", "--output", "other", "--data.prompts", "[digit 3, cat]"]
    with pytest.raises(SystemExit):
        main([*asked, *wrong])
    assert "prompt 'cat': this vocabulary has no word 'cat'" in capsys.readouterr().err
    assert not Path("other").exists()
