"""A run that begins with trained weights measures them first, and then trains."""

import json
from pathlib import Path

import pytest

from cli.main import main

SHORT = [
    "--trainer.max_epochs",
    "1",
    "--trainer.limit_train_batches",
    "1",
    "--trainer.limit_val_batches",
    "1",
]


def test_what_it_begins_with_is_measured_and_training_goes_on(tmp_path, monkeypatch):
    pytest.importorskip("transformers")
    monkeypatch.chdir(tmp_path)
    few = [*SHORT, "--trainer.limit_test_batches", "1", "--model.score_samples", "0"]
    small = "{layers: 1, width: 16, ffn: 24, heads: 2, kv_heads: 1, head_dim: 8}"
    first = ["--trainer.default_root_dir", "first", "--model.model_args", small]
    main(["fit", "--config", "emu3_5/digits_ar", *few, *first, "--test_after_fit", "false"])
    trained = small.replace("{", "{weights: first, ")
    begun = ["--trainer.default_root_dir", "second", "--model.model_args", trained]
    main(["fit", "--config", "emu3_5/digits_dida", *few, *begun])
    report = json.loads(Path("second/report.json").read_text())
    assert report["before"].keys() == report["metrics"].keys()
    assert Path("second/checkpoints/last.ckpt").exists()
