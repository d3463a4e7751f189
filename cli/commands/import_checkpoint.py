"""``fulgurite import``: a checkpoint of a paper's authors as a folder of the zoo."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cli.errors import fail, summary
from cli.words import WordParser

if TYPE_CHECKING:
    from collections.abc import Sequence


def run(words: Sequence[str]) -> None:
    """Import a file.

    Args:
        words: options after ``fulgurite import``.
    """
    parser = WordParser(
        prog="fulgurite import",
        description="Turn a checkpoint of a paper's authors into a folder that zoo.load and fulgurite publish"
        " take. The network is recognised by its tensors; classes and channels are read off them. No code in"
        " the file is run.",
    )
    parser.add_argument("file", help=".pth, .pt, .ckpt, .bin or .safetensors")
    parser.add_argument("--as", dest="name", metavar="NAME", help="the entry, where the tensors do not tell")
    parser.add_argument("--output", help="folder to write; imported/NAME if missing")
    parser.add_argument("--num-classes", type=int, metavar="K", help="where it is not to be read off")
    parser.add_argument("--in-chans", type=int, metavar="C", help="where it is not to be read off")
    parser.add_argument("--time-steps", type=int, metavar="T", help="T that the weights are for")
    parser.add_argument(
        "--arg",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="a further argument of the entry, as JSON or a word; may be repeated",
    )
    parser.add_argument("--licence", help="licence of the weights; fulgurite publish asks for it")
    parser.add_argument("--url", help="where the file was published, for the card")
    _import(parser.parse_args(list(words)))


def _import(options: Any) -> None:
    import zoo
    from zoo.recognize import import_checkpoint

    arguments = {
        key: value
        for key in ("num_classes", "in_chans", "time_steps")
        if (value := getattr(options, key)) is not None
    }
    for word in options.arg:
        key, equals, value = word.partition("=")
        if not equals or not key.isidentifier():
            fail(f"--arg needs NAME=VALUE, got {word!r}")
        arguments[key] = _plain(value)
    output = Path(options.output or Path("imported") / Path(options.file).stem)
    try:
        folder = import_checkpoint(
            options.file, output, options.name, licence=options.licence, url=options.url, **arguments
        )
    except (
        zoo.CheckpointError,
        zoo.UnknownModelError,
        FileNotFoundError,
        NotADirectoryError,
        TypeError,
        ValueError,
    ) as error:
        fail(summary(error))
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    _say(f"{options.file} is {config['architecture']} with K = {config['num_classes']}: {folder}")
    _say(
        f'zoo.load("local-dir:{folder}") loads it; fulgurite publish {folder} --repo-id OWNER/NAME shares it'
    )


def _plain(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


def _say(text: str) -> None:
    print(text)
