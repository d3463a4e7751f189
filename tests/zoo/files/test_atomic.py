"""A file is whole or not there, and a disk that is full names it."""

import errno
import os

import pytest

from zoo.files.atomic import replaced, replacing


def full():
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize("how", [replacing, replaced])
def test_a_full_disk_names_the_file_and_leaves_the_old_one(how, tmp_path):
    path = tmp_path / "table.csv"
    path.write_text("old")
    with pytest.raises(OSError, match=r"No space left on device: '.*table.csv'") as caught, how(path):
        full()
    assert caught.value.errno == errno.ENOSPC
    assert [file.read_text() for file in tmp_path.iterdir()] == ["old"]


def test_an_error_of_another_file_keeps_its_name(tmp_path):
    with pytest.raises(FileNotFoundError) as caught, replacing(tmp_path / "table.csv"):
        (tmp_path / "absent").read_bytes()
    assert caught.value.filename == str(tmp_path / "absent")
