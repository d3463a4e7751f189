"""An error in code of the user's own says where."""

import importlib.util
import traceback

import pytest

import zoo
from cli.guard import one_message
from cli.own_code import place

SOURCE = """\
import zoo

def wrong():
    return {}["nothing"]

def handed_on():
    zoo.create("resnet_of_mine")

def raised_from():
    try:
        wrong()
    except KeyError:
        zoo.create("resnet_of_mine")
"""


@pytest.fixture
def mine(tmp_path, monkeypatch):
    (tmp_path / "mine.py").write_text(SOURCE)
    monkeypatch.chdir(tmp_path)
    spec = importlib.util.spec_from_file_location("mine", tmp_path / "mine.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def raised(function):
    with pytest.raises(Exception) as caught:  # noqa: PT011
        function()
    return caught.value


@pytest.mark.parametrize(
    ("function", "where"),
    [
        ("wrong", 'mine.py, line 4: return {}["nothing"]'),
        ("handed_on", 'mine.py, line 7: zoo.create("resnet_of_mine")'),
        ("raised_from", 'mine.py, line 13: zoo.create("resnet_of_mine")'),
    ],
)
def test_the_last_line_of_the_users_is_named(mine, function, where):
    assert place(raised(getattr(mine, function))) == where


def test_an_error_handed_on_by_ours_keeps_the_place(mine):
    error = RuntimeError("cannot go on")
    error.__cause__ = raised(mine.wrong)
    assert place(error) == 'mine.py, line 4: return {}["nothing"]'


def test_the_traceback_of_a_worker_process_is_read(mine):
    text = "".join(traceback.format_exception(raised(mine.wrong)))
    error = KeyError(f"Caught KeyError in DataLoader worker process 0.\nOriginal {text}")
    assert place(error) == 'mine.py, line 4: return {}["nothing"]'


def test_ours_and_libraries_are_not_the_users():
    error = raised(lambda: zoo.create("resnet_of_mine"))
    assert error.__traceback__ is not None
    within = error.with_traceback(error.__traceback__.tb_next.tb_next)  # without this file
    assert place(within) is None


def test_the_place_follows_the_message(mine, capsys):
    with pytest.raises(SystemExit), one_message():
        mine.wrong()
    told = capsys.readouterr().err.splitlines()
    assert told[0] == "fulgurite: error: KeyError: 'nothing'"
    assert told[-1].endswith('mine.py, line 4: return {}["nothing"]')
