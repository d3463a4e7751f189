"""What the parser reads does not depend on what was imported before it."""

from typing import Union, get_args

from lightning.pytorch import Trainer

from cli.parser import read_counts_as_counts


def test_whole_numbers_are_tried_first():
    options = {"limit": Union[float, int, None], "name": str | None, "rate": float}  # noqa: UP007
    read_counts_as_counts(options)
    assert options == {"limit": int | float | None, "name": str | None, "rate": float}
    assert get_args(options["limit"])[0] is int


def test_a_limit_of_one_is_one_batch():
    """Of all options of Lightning's trainer that take counts and shares."""
    both = [get_args(hint) for hint in Trainer.__init__.__annotations__.values() if float in get_args(hint)]
    both = [kinds for kinds in both if int in kinds]
    assert len(both) >= 5
    assert all(kinds.index(int) < kinds.index(float) for kinds in both)
