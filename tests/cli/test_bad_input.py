"""Bad input is one or two lines, before anything heavy begins."""

import sys
from pathlib import Path

import pytest

from cli.config_files import check_config_files
from cli.errors import did_you_mean, out_of_memory, summary
from cli.main import main
from datamodules import DataError

TASK = "{class_path: ClassificationTask, init_args: {model: spiking_cnn_nano}}"
BOMB = "a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"{new}: &{new} [{','.join([f'*{old}'] * 9)}]\n" for old, new in zip("abcdefgh", "bcdefghi", strict=True)
)


def said(capsys, call) -> str:
    with pytest.raises(SystemExit) as caught:
        call()
    assert caught.value.code == 2
    text = capsys.readouterr().err.strip()
    assert len(text.splitlines()) <= 2, text
    return text


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["predict", "--data.predict_dir", "x", "--model", "ClassificationTask"], "no data is named"),
        (["fit", "--data", "DigitsDataModule"], "no model is named"),
    ],
)
def test_a_run_without_data_or_model(capsys, words, expected):
    assert expected in said(capsys, lambda: main(words))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("model:\n  a: {b: c\ntrainer: {}\n", "line 3"),
        ("a: [1, 2\n", "line 2"),
        ("a: *nothing\n", "line 1: found undefined alias"),
        ("a: b: c\n", "line 1"),
        (BOMB, "aliases"),
        ("a: &a [*a]\n", "aliases"),
    ],
)
def test_a_file_that_is_no_yaml_or_explodes(capsys, tmp_path, text, expected):
    path = tmp_path / "x.yaml"
    path.write_text(text)
    assert expected in said(capsys, lambda: check_config_files(["--config", str(path)]))


def test_aliases_in_reason_are_taken(tmp_path):
    path = tmp_path / "x.yaml"
    path.write_text("a: &a {b: 1}\nc: *a\nd:\n  <<: *a\n")
    check_config_files(["--config", str(path)])


def test_an_error_of_a_worker_is_its_message():
    text = (
        "Caught DataError in DataLoader worker process 0.\nOriginal Traceback (most recent call last):\n"
        '  File "x.py", line 3, in f\n    raise X\n\nValueError: first\n\nDuring handling\n\n'
        "datamodules.loading.errors.DataError: cannot read the image a.png: bad\n"
    )
    assert summary(DataError(text)) == "cannot read the image a.png: bad"


def test_whose_constructor_failed_stands_before_what_it_said():
    text = (
        "Does not validate against any of the Union subtypes\nSubtypes: [<class 'a.B'>, <class 'NoneType'>]\n"
        "Errors:\n  - Problem with given class_path 'lightning_modules.ClassificationTask':\n"
        "    'Net' has no 'heads'\n  - Expected a <class 'NoneType'>\nGiven value: Namespace(a=1)"
    )
    assert summary(ValueError(text)) == "ClassificationTask: 'Net' has no 'heads'"


@pytest.mark.parametrize(
    ("error", "size"),
    [
        (
            RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 262144 bytes."),
            "262,144",
        ),
        (MemoryError("Unable to allocate 2.9 TiB for an array"), "2.9 TiB"),
        (MemoryError(), "more than there is"),
    ],
)
def test_memory_that_is_not_there_is_a_number(error, size):
    assert size in (out_of_memory(error) or "")
    assert out_of_memory(RuntimeError("tried to allocate 5 bytes of luck")) is None


@pytest.mark.parametrize(
    ("word", "known", "meant"),
    [
        ("learning_rate", ["lr", "loss"], "'lr'"),
        ("trainer.epochs", ["trainer.max_epochs"], "'trainer.max_epochs'"),
        ("time_steps", ["model", "model_args"], "'model_args: {time_steps: ...}'"),
        ("label_smothing", ["label_smoothing", "lr"], "'label_smoothing'"),
        ("learning_rate", ["root"], ""),
        ("zebra", ["lr"], ""),
    ],
)
def test_words_of_other_programs_are_known(word, known, meant):
    assert did_you_mean(word, known) == (f"; did you mean {meant}?" if meant else "")


@pytest.mark.parametrize(
    ("word", "expected"),
    [("trian", "did you mean 'fit'?"), ("train", "'fit'"), ("tset", "'test'"), ("configz", "'configs'")],
)
def test_a_command_that_is_none(capsys, word, expected):
    text = said(capsys, lambda: main([word]))
    assert expected in text
    assert "Commands: fit, " in text


OWN = """import torch


class Bars(torch.utils.data.Dataset):
    pass
"""


@pytest.mark.parametrize(
    ("typed", "expected"),
    [
        (["--trainer.max_epochs", "one"], "trainer.max_epochs must be a whole number, got 'one'"),
        (["--test_after_fit", "maybe"], "test_after_fit must be true or false, got 'maybe'"),
        (["--model.loss", "cee"], "must be one of ce, tet, got 'cee'; did you mean 'ce'?"),
        (["--model.class_weights", "balance"], "got 'balance'; did you mean 'balanced'?"),
        (["--model.model", "[a]"], "model.model must be a word or a mapping {KEY: VALUE}, got '['a']'"),
        (
            ["--model.learning_rate", "1"],
            "ClassificationTask has no option 'learning_rate'; did you mean 'lr'?",
        ),
        (["--trainer.max_epoch", "1"], "no option --trainer.max_epoch; did you mean '--trainer.max_epochs'?"),
        (["--data", "CIFAR10"], "data: there is no class 'CIFAR10'; did you mean 'CIFAR10DataModule'?"),
        (["--model", "DetectionTask"], "no class 'DetectionTask'; fulgurite fit --help lists them"),
        (["--data", "ImageFolderDataModule"], "data.root is missing: ImageFolderDataModule needs it"),
        (["--trainer.callbacks", "firing_rat"], "did you mean 'FiringRate'?"),
        (["--data", "own_bars.Bras"], "there is no 'Bras' in own_bars"),
        (
            ["--data", "own_bars.Bars"],
            "data: {class_path: DatasetDataModule, init_args: {train: {class_path: own",
        ),
        (["--model", "own_bars.Bars"], "a network stands within a task"),
        (["--name"], "--name needs a value"),
        (["--trainer", "[]"], "trainer must be a mapping {KEY: VALUE}, got []"),
        (["--data.init_args", "[a]"], "data.init_args must be a mapping {KEY: VALUE}, got a list"),
        (["--seed", "1"], "there is no option --seed; did you mean '--seed_everything'?"),
        (["--seed_everything", "0,1"], "got '0,1'\n  each seed is a run: for s in 0 1 2"),
        (["--model.model_args.channels", "4"], "channels must be a list of whole numbers, got 4"),
        (["--model.optimizer", "adamm"], "unknown optimizer 'adamm'; did you mean 'adam'?"),
        (["--trainer.devices", "0"], "trainer.devices must be at least 1, or auto, got 0"),
        (["--trainer.strategy", "dpp"], "got 'dpp'; did you mean 'ddp'?"),
        (["--trainer.accelerator", "gpuu"], "got 'gpuu'; did you mean 'gpu'?"),
        (["--trainer.check_val_every_n_epoch", "0"], "check_val_every_n_epoch must be at least 1, got 0"),
    ],
)
def test_what_the_parser_refuses(capsys, monkeypatch, tmp_path, typed, expected):
    (tmp_path / "own_bars.py").write_text(OWN)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.path", [*sys.path])
    run = ["fit", "--model", "ClassificationTask", "--model.model", "spiking_cnn_nano"]
    assert expected in said(capsys, lambda: main([*run, "--data", "DigitsDataModule", *typed]))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("modle: {class_path: ClassificationTask}\ndata: DigitsDataModule\n", "did you mean 'model'?"),
        ("model: {class_path: ClassificationTask, init_args: {model: x}}\n", "no data is named"),
        (f"model: {TASK}\ndata: {{clas_path: X}}\n", "no option 'clas_path'; did you mean 'class_path'?"),
    ],
)
def test_keys_of_a_file_that_are_none_or_missing(capsys, tmp_path, text, expected):
    path = tmp_path / "x.yaml"
    path.write_text(text)
    assert expected in said(capsys, lambda: main(["fit", "--config", str(path)]))


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["fit", "stbp/mnist5k"], "a run is named by --config stbp/mnist5k"),
        (["fit", "nothing"], "--config FILE; fulgurite configs lists"),
        (["fit", "--confg", "stbp/mnist5k"], "there is no option --confg; did you mean '--config'?"),
        (
            ["fit", "--config", "conversion/dcgs_fashion_mnist"],
            "convert --config conversion/dcgs",
        ),
        (["convert", "--config", "stbp/mnist5k"], "fulgurite fit --config stbp/mnist5k"),
        (["fit", "--config", "list.yaml"], "list.yaml is no run"),
        (["fit", "--config", "comments.yaml"], "comments.yaml holds nothing but comments"),
        (["predict", "x", "y", "--topk", "3"], "there is no option --topk; did you mean '--top_k'?"),
        (["models", "--zebra"], "there is no option --zebra\n  fulgurite models --help"),
        (["demo", "x", "--port", "abc"], "argument --port: invalid int value: 'abc'"),
        (["info"], "required: name"),
        (["predict", "spiking_cnn_nano", "nothing.png"], "no such file or folder: nothing.png"),
        (["predict", "empty", "nothing.png"], "the folder empty holds neither a network nor checkpoints"),
        (["predict", "./empty", "x.png"], "the folder empty holds no network"),
        (["info", "my_net.Net"], "a class of your own is {class_path: my_net.Net}"),
        (["info", "timm/resnt18"], "did you mean 'timm/resnet18'?"),
    ],
)
def test_words_that_stand_alone_or_elsewhere(capsys, monkeypatch, tmp_path, words, expected):
    monkeypatch.chdir(tmp_path)
    Path("empty").mkdir()
    Path("list.yaml").write_text("- a\n- b\n")
    Path("comments.yaml").write_text("# nothing\n")
    assert expected in said(capsys, lambda: main(words))


def test_what_was_predicted_stays_until_there_is_something_new(capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    Path("no.png").write_text("no image")
    Path("predictions.csv").write_text("earlier")
    with pytest.warns(
        UserWarning, match="cannot read the image no.png: it is of no format that Pillow knows"
    ):
        text = said(capsys, lambda: main(["predict", "spiking_cnn_nano", "no.png"]))
    assert "none of 1 images could be read, so predictions.csv is not written" in text
    assert Path("predictions.csv").read_text() == "earlier"
