"""``fulgurite publish``: a run, or a folder of the zoo, on the Hub."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from cli.errors import CommandError, fail, summary
from cli.words import WordParser

if TYPE_CHECKING:
    from collections.abc import Sequence

HUB = "hub"  # subfolder with what is published


def run(words: Sequence[str]) -> None:
    """Publish.

    Args:
        words: options after ``fulgurite publish``.
    """
    parser = WordParser(
        prog="fulgurite publish",
        description="Publish a run (runs/NAME) or a folder of zoo.save on the Hub, in one commit: weights,"
        " description, model card, figures. The token is never an option: it is taken from HF_TOKEN or from"
        " `hf auth login`.",
    )
    parser.add_argument("source", help="a run's folder or its name in runs/, or a folder of zoo.save")
    parser.add_argument("--repo-id", required=True, metavar="OWNER/NAME", help="made if it does not exist")
    parser.add_argument("--private", action="store_true", help="make a new repository private")
    parser.add_argument("--revision", help="branch, made if it does not exist; main if missing")
    parser.add_argument("--licence", help="licence of the weights: apache-2.0, mit, cc-by-nc-4.0, ...")
    parser.add_argument("--limits", help="a sentence for the card: what users must know")
    parser.add_argument("--message", help="message of the commit")
    parser.add_argument(
        "--token-from",
        choices=("any", "env", "login"),
        default="any",
        help="env: HF_TOKEN only; login: only what `hf auth login` stored; any: the one, then the other",
    )
    parser.add_argument(
        "--dry-run", action="store_true", help=f"write what would be published to SOURCE/{HUB}, and stop"
    )
    options = parser.parse_args(list(words))
    _publish(options)


def _publish(options: Any) -> None:
    import zoo
    from cli.run.package import export_run
    from zoo.files.layout import is_run
    from zoo.hub.push import prepare
    from zoo.locate import path_of

    expected = (
        CommandError,
        zoo.CheckpointError,
        zoo.HubError,
        zoo.LicenceError,
        zoo.NotRebuildableError,
        zoo.UnknownModelError,
        FileNotFoundError,
        ValueError,
    )
    try:
        folder = source = path_of(options.source)
        if not source.is_dir():
            fail(f"{source} is a file; give a run (runs/NAME) or a folder of zoo.save")
        if is_run(source):
            folder = export_run(source, source / HUB, licence=options.licence, limits=options.limits)
        elif options.limits:
            fail("--limits is for runs; a folder has its card already, write it there")
        files = prepare(folder, options.repo_id, licence=options.licence)
        if options.dry_run:
            _write(files, source / HUB)
            _show(files)
            _say(f"nothing was sent; look at {source / HUB / 'README.md'}, then leave --dry-run out")
            return
        done = zoo.push(
            folder,
            options.repo_id,
            private=options.private,
            revision=options.revision,
            licence=options.licence,
            message=options.message,
            token_from=options.token_from,
        )
    except expected as error:
        fail(summary(error))
    _show(files)
    _say(f"published as {done.url}, commit {done.commit}")
    _say(f'zoo.load("hf-hub:{done.repo_id}@{done.commit[:12]}") loads exactly this')


def _write(files: dict[str, Path | bytes], target: Path) -> None:
    """Put what would be published into a folder."""
    from zoo.files.atomic import write_bytes
    from zoo.hub.push import refuse_links

    refuse_links(target.parent, (target.name,))
    for name, content in files.items():
        write_bytes(target / name, content if isinstance(content, bytes) else content.read_bytes())


def _show(files: dict[str, Path | bytes]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    table.add_column("file")
    table.add_column("bytes", justify="right")
    for name, content in sorted(files.items()):
        size = len(content) if isinstance(content, bytes) else content.stat().st_size
        table.add_row(name, f"{size:,}")
    Console().print(table)


def _say(text: str) -> None:
    print(text)
