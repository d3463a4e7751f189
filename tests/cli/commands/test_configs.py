"""``fulgurite configs``: found by name, part or word; shown with both numbers; copied to be edited."""

from pathlib import Path

import pytest

from cli.main import main

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def printed(capsys, *words):
    main(["configs", *words])
    return capsys.readouterr().out


def refused(capsys, *words):
    with pytest.raises(SystemExit) as ended:
        main(["configs", *words])
    assert ended.value.code == 2
    return capsys.readouterr().err


def test_all_are_listed(capsys):
    text = printed(capsys)
    for path in (ROOT / "configs").rglob("*.yaml"):
        assert f"{path.parent.name}/{path.stem} " in text


def test_the_paper_s_number_and_ours_have_columns_of_their_own(capsys):
    lines = printed(capsys, "stbp/*").splitlines()
    assert lines[0].split() == ["run", "published", "measured", "by", "us", "what", "it", "is"]
    (row,) = [line for line in lines if line.startswith("stbp/cifar100_spiking_resnet18")]
    assert row.index("72.22 %") == lines[0].index("published")
    assert row.index("not measured yet") == lines[0].index("measured")


@pytest.mark.parametrize("pattern", ["stbp/mnist5k", "configs/stbp/mnist5k.yaml", "STBP/mnist5k"])
def test_one_is_shown_in_full(capsys, pattern):
    text = printed(capsys, pattern)
    assert "fulgurite fit --config stbp/mnist5k" in text
    assert "98.3 % test accuracy at T = 4, seed 0, one thread (T = 1: 97.9 %)" in text


def test_a_conversion_has_another_command(capsys):
    assert "fulgurite convert --config conversion/qcfs_cifar10_jpeg" in printed(capsys, "qcfs_cifar10_jpeg")


def test_a_word_of_what_a_run_is_of_finds_it(capsys):
    text = printed(capsys, "N-MNIST")
    assert "spikformer/nmnist" in text
    assert "fashion" not in text  # only whole words count


@pytest.mark.parametrize("words", [["stbp/mnist5k", "--copy"], ["--copy", "stbp/mnist5k"]])
def test_a_copy_is_the_file_and_overwrites_nothing(capsys, words):
    assert "fulgurite fit --config stbp-mnist5k.yaml" in printed(capsys, *words)
    copy = Path("stbp-mnist5k.yaml")
    assert copy.read_text() == (ROOT / "configs/stbp/mnist5k.yaml").read_text()
    assert "is there already" in refused(capsys, *words)
    printed(capsys, "stbp/mnist5k", "--copy", "a/b.yaml")
    assert Path("a/b.yaml").read_text() == copy.read_text()


def test_what_cannot_be_copied_is_told(capsys):
    several = len(list((ROOT / "configs").rglob("*mnist5k*.yaml")))
    assert several > 1
    assert f"{several} runs match 'mnist5k'" in refused(capsys, "mnist5k", "--copy")
    assert "name the run to copy" in refused(capsys, "--copy")
    assert "did you mean 'stbp/mnist5k'?" in refused(capsys, "stpb/mnist5k")
