"""What the parser finds wrong, in one or two lines: the key, the value, what would do, and what was meant."""

from __future__ import annotations

import ast
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from cli.errors import did_you_mean, nearest, without_noise

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

KINDS = {
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "str": "a word",
    "list": "a list",
    "tuple": "a list",
    "dict": "a mapping {KEY: VALUE}",
}
SOUGHT = "in the working directory, beside the YAML file, or among what is installed"
SUFFIXES = ("DataModule", "Task", "Callback", "Logger")  # of class names, which people leave out
INSIDE = {  # where a class belongs that people put in the place of these
    "BaseTask": "a network stands within a task: model: {class_path: ClassificationTask, init_args: {model:"
    " {class_path: %s}}}",
    "LightningDataModule": "a data set stands within a data module: data: {class_path: DatasetDataModule,"
    " init_args: {train: {class_path: %s}}}",
}
WAYS_OUT = {
    "seed_everything": "\n  each seed is a run:"
    " for s in 0 1 2; do fulgurite fit ... --seed_everything $s; done",
}
LONGEST = 80  # characters of a value that is repeated


@dataclass(kw_only=True)
class Complaint:
    """The innermost thing that a message of jsonargparse is about.

    Attributes:
        keys: where it is, from outside inwards.
        owner: class whose arguments these are.
        option: one that the class does not have.
        missing: arguments that were not given.
        unknown: name of a class that is not there.
        bases: classes that one in its place must have among its own.
        kinds: types that a value may have.
        choices: values that there are.
        got: the value, as it is shown.
        foreign: class that a value must be a kind of, and is not.
        settings: what stands where settings belong that have names.
        said: what else is said of it.
    """

    keys: list[str] = field(default_factory=list)
    owner: str | None = None
    option: str | None = None
    missing: str | None = None
    unknown: str | None = None
    bases: tuple[str, ...] = ()
    kinds: dict[str, None] = field(default_factory=dict)
    choices: dict[str, None] = field(default_factory=dict)
    got: str | None = None
    foreign: str | None = None
    settings: str | None = None
    said: str | None = None


def explain(message: str, known_keys: Iterable[str], classes: Mapping[str, type]) -> str:
    """Say in one or two lines what is wrong and what would have been accepted.

    Args:
        message: as jsonargparse words it, one or more lines.
        known_keys: dotted keys of the parser.
        classes: tasks, data modules, callbacks and loggers by short name.
    """
    keys = list(known_keys)
    if (text := _of_the_line(message, keys)) is not None:
        return text
    told = read(message)
    place = ".".join(told.keys)
    if told.option is not None:
        return _option(told, place, classes)
    if told.missing is not None:
        prefix = f"{place}." if place else ""
        names = ", ".join(f"{prefix}{name}" for name in re.split(r", *", told.missing))
        return f"{names} is missing: {_short(told.owner)} needs it" if told.owner else f"{names} is missing"
    if told.unknown is not None:
        return _unknown(told, place, classes)
    if told.foreign is not None:
        return _foreign(told, place)
    if told.said is not None:
        return (
            f"{place}: {told.said}"
            if _short(told.owner) in classes
            else f"{place}: {told.owner}: {told.said}"
        )
    if place and (told.kinds or told.choices):
        return _value(told, place)
    if told.settings is not None:
        place = told.keys[0] if told.owner is None else f"{place}.init_args"
        return f"{place} must be {KINDS['dict']}, got {told.settings}"
    if found := re.fullmatch(r"argument (--[\w.]+): expected one argument", message.strip()):
        return f"{found[1]} needs a value"
    return without_noise(message)


def read(message: str) -> Complaint:
    """Take a message apart; where a value fits none of several types, what is said of the first is taken."""
    told, depth = Complaint(), -1  # indentation of the innermost key
    for line in message.splitlines():
        indent, words = len(line) - len(line.lstrip(" ")), line.strip().removeprefix("- ")
        if found := re.fullmatch(r"Parser key ['\"](.+)['\"]:", words):
            if _is_settled(told):
                break
            told.keys.append(found[1])
            depth = indent
            told.kinds, told.choices, told.bases = {}, {}, ()
            continue
        if indent <= depth and told.keys and _is_settled(told):
            break
        if found := re.fullmatch(r"Problem with given class_path ['\"]([\w.]+)['\"]:", words):
            if told.owner is not None and _is_settled(told):
                break
            told.owner = found[1]
            continue
        _read_line(told, words)
    return told


def _is_settled(told: Complaint) -> bool:
    return bool(
        told.said
        or told.settings
        or told.foreign
        or told.option
        or told.missing
        or told.unknown
        or told.got is not None
    )


def _read_line(told: Complaint, words: str) -> None:
    if found := re.match(r"Option '([\w.]+)' is not accepted", words):
        told.option = found[1]
    elif found := re.match(r"the following arguments are required: (.+)", words):
        told.missing = found[1]
    elif found := re.match(r"Expected a dot import path string: (\S+)", words):
        told.unknown = found[1]
    elif found := re.match(
        r"Unable to load config ['\"](.*)['\"]$|'(\w+)' object has no attr.*'keys'", words
    ):
        # what is no mapping is taken for the name of a file, or asked for its keys
        told.settings = found[1] or KINDS.get(found[2], found[2])
    elif found := re.match(r"No module named '([\w.]+)'", words):
        told.said = f"there is no module '{found[1]}' {SOUGHT}"
    elif found := re.match(r"module '([\w.]+)' has no attribute '(\w+)'", words):
        told.said = f"there is no '{found[2]}' in {found[1]}"
    elif found := re.match(
        r"(?:Import path does not correspond to a|Not a valid) subclass of (\w+)(?:.*Got value: (.*))?", words
    ):
        told.foreign = found[1]
        told.got = found[2] if told.got is None else told.got
    elif found := re.match(r"Subtypes: (.*)", words):
        told.bases = tuple(re.findall(r"([\w]+)(?=['\]])", found[1]))
    elif found := re.match(r"Expected a typing\.Literal(\[.*?\])(?:\. Got value: (.*))?$", words):
        told.choices |= {str(value): None for value in ast.literal_eval(found[1])}
        told.got = found[2] if told.got is None else told.got
    elif found := re.match(r"Expected a <class '([\w.]+)'>(?:\. Got value: (.*))?", words):
        if found[1] != "NoneType":
            told.kinds[KINDS.get(found[1], found[1].rpartition(".")[2])] = None
        told.got = found[2] if told.got is None else told.got
    elif (found := re.match(r"Given value: (.*)", words)) and told.got is None:
        told.got = found[1]


def _of_the_line(message: str, keys: list[str]) -> str | None:
    """About words of the command line, or keys of the YAML file, that there are not."""
    if found := re.search(r"[Uu]nrecognized arguments: (.*)", message):
        words = found[1].split()
        option = next((word for word in words if word.startswith("-")), None)
        if option is None:
            return (
                f"'{found[1]}' belongs to no option; a file is named by --config FILE, and a value that has"
                " blanks or braces is quoted"
            )
        name = option.lstrip("-").partition("=")[0]
        hint = _near(name, keys).replace("did you mean '", "did you mean '--")
        return f"there is no option {option.partition('=')[0]}{hint or '; --help all lists them'}"
    for pattern in (r"[Kk]ey ['\"]([\w.]+)['\"] is not exp", r"does not accept option '([\w.]+)'"):
        if found := re.search(pattern, message):
            return f"there is no key '{found[1]}'{_near(found[1], keys) or '; --help all lists them'}"
    if found := re.fullmatch(
        r"the following arguments are required: (?:fit|validate|test|predict)\.(model|data)", message.strip()
    ):
        return f"no {found[1]} is named: the YAML file says `{found[1]}: CLASS` (--help lists them)"
    return None


def _near(name: str, keys: list[str]) -> str:
    """A hint to the known key that is meant; a misspelt first part hides what stands behind it."""
    first, _, rest = name.partition(".")
    firsts = {key.partition(".")[0] for key in keys}
    if rest and first not in firsts:
        near = nearest(first, firsts)
        return "" if near is None else f"; did you mean '{near}'?"
    return did_you_mean(name, keys)


def _short(path: str | None) -> str:
    return (path or "").rpartition(".")[2]


def _foreign(told: Complaint, place: str) -> str:
    got = told.got or ""
    if re.fullmatch(r"[\w.]+", got):
        inside = INSIDE.get(told.foreign or "", "")
        return f"{place}: {got} is no {told.foreign}" + (f"; {inside % got}" if inside else "")
    return f"{place} must be CLASS, or {{class_path: CLASS, init_args: {{KEY: VALUE}}}}, got {_cut(got)}"


def _cut(got: str) -> str:
    return got if len(got) <= LONGEST else got[:LONGEST] + "..."


def _option(told: Complaint, place: str, classes: Mapping[str, type]) -> str:
    from cli.errors import accepted_options

    cls = classes.get(_short(told.owner))
    options = sorted(accepted_options(cls)) if cls else []
    text = f"{place}: {_short(told.owner)} has no option '{told.option}'"
    hint = did_you_mean(told.option or "", [*options, "class_path", "init_args"])
    if hint or not options:
        return text + hint
    return f"{text}\n  it has {', '.join(options)}"


def _unknown(told: Complaint, place: str, classes: Mapping[str, type]) -> str:
    """A class that is not there; meant is one that may stand in its place, whose name people shorten."""
    word = told.unknown or ""
    fitting = {
        _bare(name): name
        for name, cls in classes.items()
        if not told.bases or {base.__name__ for base in cls.__mro__} & set(told.bases)
    }
    # what is left of a name is short, and resembles others by chance
    near = fitting.get(nearest(_bare(word.rpartition(".")[2]), fitting, cutoff=0.65) or "")
    lists = "fulgurite fit --help lists them; one of your own is my_file.MyClass"
    return f"{place}: there is no class '{word}'; " + (f"did you mean '{near}'?" if near else lists)


def _bare(name: str) -> str:
    """A class name without the part that all of its kind share."""
    plain = re.sub(r"[\W_]", "", name).lower()
    for end in SUFFIXES:
        plain = plain.removesuffix(end.lower()) or plain
    return plain


def _value(told: Complaint, place: str) -> str:
    wanted = list(told.kinds)
    if told.choices:
        wanted = [("one of " if len(told.choices) > 1 else "") + ", ".join(told.choices), *wanted]
    got = told.got or "nothing"
    if found := re.fullmatch(r"NestedArg\(key='[\w.]+', val=(.*)\)", got):
        got = found[1]
    got = _cut(got.strip("'"))
    near = nearest(got, told.choices) if told.choices else None
    hint = "" if near is None else f"; did you mean '{near}'?"
    return f"{place} must be {' or '.join(wanted)}, got '{got}'{hint}{WAYS_OUT.get(place, '')}"
