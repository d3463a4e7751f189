"""The reference of the command line has every command and each of our options."""

import re
import sys
from pathlib import Path

import pytest

from cli.main import BY_NAME, COMMANDS, RUNS
from tests.test_public_names import OPTIONS

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "docs"))
import _commands


@pytest.fixture(scope="module")
def sections(tmp_path_factory) -> dict[str, str]:
    path = tmp_path_factory.mktemp("docs") / "cli.md"
    _commands.write_reference(path)
    parts = re.split(r"^## fulgurite (.*)\n", path.read_text(), flags=re.M)[1:]
    return dict(zip(parts[::2], parts[1::2], strict=True))


def test_every_command_has_a_section(sections):
    expected = [f"{command} --config FILE" if command in RUNS else command for command in COMMANDS]
    assert [name for name in sections if not name.endswith(" NAME")] == expected
    assert {name.partition(" ")[0] for name in sections if name.endswith(" NAME")} == set(BY_NAME)


@pytest.mark.parametrize("command", OPTIONS)
def test_each_option_is_told(sections, command):
    text = sections[f"{command} --config FILE" if command in RUNS else command]
    told = set(re.findall(r"(?<![\w-])--?[\w.-]+", "\n".join(re.findall(r"^`(.*)`$", text, re.M))))
    ours = {o for o in OPTIONS[command].split() if not o.endswith((".help", "+"))} - {"-h"}
    if command in RUNS:  # some options of a run say nothing to each of its commands
        ours -= set(_commands._useless(command))
    assert told == ours - set(_commands.HIDDEN)
    assert not re.findall(r"^: ?$", text, re.M), "an option without a word on it"


def test_nothing_of_lightning_s_is_in_it(sections):
    assert not any(
        "--trainer." in line for text in sections.values() for line in re.findall(r"^`.*", text, re.M)
    )
