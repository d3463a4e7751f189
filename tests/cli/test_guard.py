"""What a command says besides its results is short."""

import warnings

from cli.guard import short_warnings


def test_a_warning_is_a_line():
    before = warnings.formatwarning
    with short_warnings():
        assert warnings.formatwarning("beware", UserWarning, "x.py", 3) == "fulgurite: warning: beware\n"
    assert warnings.formatwarning is before
