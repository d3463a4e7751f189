"""No golden is left out without a reason."""

import importlib
from pathlib import Path

import pytest

from tests.parity.goldens import ABSENT, CLAIMED, FILES, TABLES, Golden

pytestmark = [pytest.mark.golden, pytest.mark.skipif(not FILES, reason=ABSENT)]

# What an unclaimed file is about, as its sidecar says, and why no test compares it.
NOT_YET: dict[str, str] = {}


def excuse(golden: Golden) -> str | None:
    source = golden.sidecar.get("source", "")
    return next((why for name, why in NOT_YET.items() if name in str(source)), None)


def test_every_file_is_compared_or_excused(record_property):
    for path in sorted(Path(__file__).parent.glob("test_*.py")):
        importlib.import_module(f"tests.parity.{path.stem}")  # its tests claim files as they are made
    forgotten = [str(path) for path in TABLES if path not in CLAIMED]
    for golden in FILES:
        claimed = CLAIMED.get(golden.path, set())
        left = sorted(set(golden.case_names) - claimed) if golden.case_names else [""] if not claimed else []
        why = excuse(golden)
        assert why is None or not claimed, f"{golden.name}: compared and excused at once"
        if why is None:
            forgotten += [f"{golden.name} {case}".strip() for case in left]
        else:
            record_property(golden.name, why)
            print(f"not compared: {golden.name}: {why}")
    assert not forgotten, f"no test compares {forgotten}"
