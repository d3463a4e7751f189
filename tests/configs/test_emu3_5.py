"""The runs of Emu3.5 train for a step as they stand, one after the other."""

import json
import shutil
from pathlib import Path

import pytest
import torch
import yaml

from cli.main import main

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


@pytest.mark.parametrize("kind", ["digits", "digits_pairs"])
def test_a_model_is_trained_and_adapted(kind, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for part in ("ar", "dida"):
        config = yaml.safe_load((ROOT / f"{kind}_{part}.yaml").read_text(encoding="utf-8"))
        config["trainer"] |= SHORT
        config["data"]["init_args"] |= {"batch_size": 2, "eval_batch_size": 2}
        config["model"]["init_args"] |= {"score_samples": 10}
        config["test_after_fit"] = False
        copy = tmp_path / "emu3_5" / f"{kind}_{part}.yaml"
        copy.parent.mkdir(exist_ok=True)
        copy.write_text(yaml.safe_dump(config))
        main(["fit", "--config", str(copy)])
        run = tmp_path / "runs" / f"emu3_5-{kind}_{part}"
        assert (run / "checkpoints" / "best.ckpt").is_file()
        table = (run / "metrics.csv").read_text()
        assert "train/loss" in table
        assert "nan" not in table
    shutil.rmtree(tmp_path / "runs" / f"emu3_5-{kind}_ar")
    with pytest.raises(SystemExit):  # in words: the run that is to be adapted is not there
        main(["fit", "--config", str(copy)])


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
