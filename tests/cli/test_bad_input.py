"""Bad input is one or two lines, before anything heavy begins."""

import pytest

from cli.config_files import check_config_files
from cli.errors import did_you_mean, explain, out_of_memory, summary
from cli.main import main
from datamodules import DataError

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


def test_values_of_several_kinds_are_one_list():
    message = (
        "Parser key:\n  - Expected a typing.Literal[64, 32]\n  - Expected a typing.Literal['64', 'bf16']"
    )
    assert explain(message, [], {}).splitlines()[1].strip() == "must be one of 64, 32, bf16"
