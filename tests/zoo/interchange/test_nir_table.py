"""NIR between libraries: what runs of both sides give is what the documentation's table says."""

import csv

import pytest

pytest.importorskip("nir", reason="the extra 'nir' is not installed")
from benchmarks import nir_table

with nir_table.TABLE.open(newline="", encoding="utf-8") as file:
    TOLD = {(r["writer"], r["reader"], r["network"]): r for r in csv.DictReader(file)}


@pytest.mark.slow
@pytest.mark.parametrize("name", nir_table.names(), ids="; ".join)
def test_rows_are_what_both_sides_compute(name):
    library = name[1] if name[0] == nir_table.OURS else name[0]
    if why := nir_table.missing(library):
        pytest.skip(f"the extra 'interop' is not installed, or not whole: {why}")
    found = nir_table.row(*name)
    assert found.equal == TOLD[name]["equal"], found.outcome
    assert found.outcome == TOLD[name]["outcome"]


def test_the_table_has_every_row_and_no_other():
    assert list(TOLD) == nir_table.names()


@pytest.mark.parametrize(
    ("reader", "network"),
    [
        ("SpikingJelly", "LIF, input divided by tau (r = 1)"),
        ("SpikingJelly", "LIF, input not divided (r = tau)"),
        ("SpikingJelly", "IF"),
        ("snnTorch", "LIF, input divided by tau (r = 1)"),
        ("snnTorch", "LIF, input not divided (r = tau)"),
        ("Norse", "the same without pooling"),
    ],
)
def test_what_other_libraries_take_is_equal_there(reader, network):
    assert TOLD[nir_table.OURS, reader, network]["equal"] == "1.0000"


def test_all_that_the_libraries_write_is_equal_here_but_a_reset_that_nir_cannot_say():
    assert {n for (w, _, n), row in TOLD.items() if w != nir_table.OURS and row["equal"] != "1.0000"} == {
        "Leaky, reset by subtraction (its default)",
        "Leaky, reset to zero, one decay for all",  # no file is written
        "LIFBoxCell, one parameter for all",
    }
