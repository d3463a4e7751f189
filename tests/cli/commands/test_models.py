"""``fulgurite models``: the table and its filters."""

import pytest

import zoo
from cli.commands.models import parameters
from cli.main import main


def shown(capsys, *words):
    main(["models", *words])
    return capsys.readouterr().out


def refused(capsys, *words):
    with pytest.raises(SystemExit) as ended:
        main(["models", *words])
    assert ended.value.code == 2
    return capsys.readouterr().err


@pytest.fixture(scope="module")
def told():
    return [zoo.describe(name) for name in zoo.list_models()]


def names(out):
    known = set(zoo.list_models())
    return {line.split()[0] for line in out.splitlines()[1:] if line.split() and line.split()[0] in known}


def test_everything(capsys):
    out = shown(capsys)
    assert names(out) == set(zoo.list_models())
    assert "mnist5k_t4 (98.8%)" in out
    assert "arXiv 2403.14302" in out


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--family", "sew_resnet"], lambda d: d.family == "sew_resnet"),
        (["--paper", "2403.14302"], lambda d: d.paper == "2403.14302"),
        (["--pretrained"], lambda d: d.weights),
        (["--max-params", "300k"], lambda d: d.parameters <= 300_000),
        (["*resnet18", "--max-params", "11.5M"], lambda d: "resnet18" in d.name and d.parameters <= 11.5e6),
        (["resformer", "--task", "classification"], lambda d: "resformer" in d.name),
    ],
)
def test_filters(words, expected, capsys, told):
    found = names(shown(capsys, *words))
    assert found == {one.name for one in told if expected(one)}
    assert found


def test_one_in_full(capsys):
    out = shown(capsys, "spiking-cnn-nano", "--macs")
    assert "3,119,360" in out
    assert "5.63 M a sample over all T" in out
    assert "licence Apache-2.0" in out


def test_models_of_timm(capsys):
    out = shown(capsys, "timm/resnet18")
    assert "11,689,512" in out
    assert "timm/resnet18.a1_in1k (licence apache-2.0)" in out
    many = shown(capsys, "timm/*", "--pretrained").split()
    assert "timm/vit_small_patch16_224.augreg_in1k" in many
    assert "narrow the pattern" in refused(capsys, "timm/*", "--max-params", "5M")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["spikingresfomer"], "did you mean 'spikingresformer"),
        (["--family", "sew_resnt"], "did you mean 'sew_resnet'"),
        (["--paper", "1234.56789"], "known: "),
        (["--max-params", "many"], "a number such as 20M"),
        (["--max-params", "3"], "leave one out"),
        (["timm/nothing_like_it"], "no model matches"),
    ],
)
def test_nothing_found(words, message, capsys):
    assert message in refused(capsys, *words)


def test_sizes():
    assert parameters("20M") == 20e6
    assert parameters("1_000") == 1000
    with pytest.raises(ValueError, match=r"got '1\.2\.3'"):
        parameters("1.2.3")
