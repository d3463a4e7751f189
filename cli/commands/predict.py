"""``fulgurite predict NAME IMAGES``: what a trained network says of images, without a YAML file."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cli.errors import CommandError, fail, summary
from cli.words import WordParser

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from torch import Tensor

    from lightning_modules.callbacks.predictions import ClassTable
    from lightning_modules.callbacks.unread import Unread

SHOWN = 20  # rows on the screen


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """One image.

    Attributes:
        path: where it is from.
        cells: its best classes, each followed by its probability, as the table has them.
        true: the true class if known.
    """

    path: str
    cells: list[str]
    true: str | None = None

    @property
    def best(self) -> list[tuple[str, float]]:
        """Classes and probabilities."""
        return [(label, float(p)) for label, p in zip(self.cells[::2], self.cells[1::2], strict=True)]


def run(words: Sequence[str]) -> None:
    """Classify images.

    Args:
        words: options after ``fulgurite predict``.
    """
    parser = WordParser(
        prog="fulgurite predict",
        description="Classify images with a trained network, prepared as its weights want them; one that was"
        " trained for numbers, several labels or segmentation says these. With --config FILE instead of a"
        " name, a run predicts as its YAML file says.",
    )
    parser.add_argument(
        "name", help="an entry of the zoo, timm/NAME, a folder, a run (runs/NAME), or hf-hub:OWNER/NAME"
    )
    parser.add_argument(
        "images",
        nargs="+",
        help="images, folders of images, or a data set, whose test part is meant",
    )
    parser.add_argument("--output", help="table to write; predictions.csv. Of segmentations a folder; masks")
    parser.add_argument("--top-k", "--top_k", type=int, default=5, metavar="K", help="labels in a line; 5")
    parser.add_argument("--batch-size", type=int, default=64, metavar="N", help="images at once; 64")
    parser.add_argument("--time-steps", type=int, metavar="T", help="T; that of the weights if missing")
    parser.add_argument("--root", help="where the data set lies")
    parser.add_argument("--device", help="cpu, cuda, cuda:1, ...; an accelerator if there is one")
    options = parser.parse_args(list(words))
    for name in ("top_k", "batch_size", "time_steps"):
        if (value := getattr(options, name)) is not None and value < 1:
            fail(f"--{name.replace('_', '-')} must be at least 1, got {value}")
    _predict(options)


def _predict(options: Any) -> None:
    import torch

    from cli import networks
    from cli.demo.explain import class_names
    from cli.run.folder import check_output
    from lightning_modules.callbacks.predictions import ClassTable
    from lightning_modules.callbacks.unread import Unread

    arguments = {} if options.time_steps is None else {"time_steps": options.time_steps}
    model = networks.load(options.name, **arguments)
    task = networks.task_of(model, options.name)
    masks = task == "segmentation"
    output = Path(options.output or ("masks" if masks else "predictions.csv"))
    check_output(output, folder=masks)
    found = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else "cpu"
    try:
        device = torch.device(options.device or found or "cpu")
        model.to(device)
    except (RuntimeError, AssertionError) as error:
        raise CommandError(f"--device {options.device}: {summary(error)}") from error
    batches = _batches(model, options)
    names = class_names(model, int(model.num_classes))
    unread = Unread()
    outputs = _outputs(model, batches, device, unread)
    if task == "classification":
        table = ClassTable(names, options.top_k)
        rows = list(_classified(outputs, names, table))
        count = len(rows)
        if rows:
            _keep_earlier(output)
            _write(rows, table, output)
            _show(rows, options.name)
    else:
        count = _write_others(task, outputs, names, output)
    if count:
        print(f"{count} predictions written to {output}")
    unread.check(output)


def _keep_earlier(output: Path) -> None:
    """Put what an earlier command wrote out of the way, once there is something to write."""
    from cli.run.folder import move_aside

    if output.exists():
        print(f"the earlier {output} is kept as {move_aside(output)}")


def _batches(model: Any, options: Any) -> Iterable[tuple[Tensor, Any]]:
    """Batches of images, and their paths or true classes."""
    from torch.utils.data import DataLoader

    import zoo
    from cli import networks
    from datamodules import ImageDataset
    from datamodules.loading.folder import find_images
    from datamodules.loading.loader import as_is
    from lightning_modules import preprocessing

    try:
        transform = zoo.transform(model)
        if not getattr(model, "num_classes", 0):
            raise ValueError(f"{options.name} has no classes, so there is nothing to predict")
    except ValueError as error:
        raise CommandError(str(error)) from error
    (word, *more) = options.images
    if more or Path(word).exists():
        missing = [place for place in options.images if not Path(place).exists()]
        if missing:
            raise CommandError(f"no such file or folder: {missing[0]}")
        paths = find_images(options.images)
        images = ImageDataset(paths, None, lambda image, _: transform(image), transform.input_size[0])
        return DataLoader(images, batch_size=options.batch_size, collate_fn=as_is)
    told = networks.data_of(word, model, options.root)
    data = told.kind(eval_batch_size=options.batch_size, **told.arguments)
    networks.check_fits(model, data, options.name)
    preprocessing.match(data, preprocessing.wanted_by(model), options.name)
    data.prepare_data()
    data.setup("test")
    return data.test_dataloader()


def _outputs(
    model: Any, batches: Iterable[tuple[Tensor, Any]], device: Any, unread: Unread
) -> Iterator[tuple[Tensor, list[str], Tensor | None]]:
    """Outputs ``[B, ...]`` of every batch, paths of its samples, and their true targets where known.

    Samples that could not be read are left out.
    """
    import torch
    from rich.progress import track

    total, count = len(batches), 0  # type: ignore[arg-type]  # a loader has a length
    with torch.inference_mode():
        for x, known in track(batches, "predicting", total=total, transient=True):
            x = x.to(device)
            outputs = model(x.transpose(0, 1) if x.dim() == 5 else x).float().cpu()
            if isinstance(known, torch.Tensor):
                yield outputs, [f"test/{count + k}" for k in range(len(known))], known
            elif read := list(unread.leave_out(known, outputs)):
                yield torch.stack([one for _, one in read]), [path for path, _ in read], None
            count += len(known)


def _write_others(
    task: str, outputs: Iterable[tuple[Tensor, list[str], Any]], names: list[str], output: Path
) -> int:
    """Write what is no single class: a table of numbers or labels, or a mask for each sample."""
    from lightning_modules.callbacks.mask_writer import MaskWriter
    from lightning_modules.callbacks.predictions import LabelsTable, NumberTable, Table, write_table

    masks = MaskWriter(output)
    table: Table = NumberTable(names) if task == "regression" else LabelsTable(names)
    rows: list[list[str]] = []
    count = 0
    for batch, paths, _ in outputs:
        if not count:
            _keep_earlier(output)
        for path, one in zip(paths, batch, strict=True):
            if task == "segmentation":
                masks.write(path, one)
            else:
                rows.append([path, *table.cells(one)])
            count += 1
    if rows:
        write_table(output, table, rows)
    return count


def _classified(
    outputs: Iterable[tuple[Tensor, list[str], Tensor | None]], names: list[str], table: ClassTable
) -> Iterator[Prediction]:
    for logits, paths, known in outputs:
        for k, (path, one) in enumerate(zip(paths, logits, strict=True)):
            true = None if known is None else names[int(known[k])]
            yield Prediction(path=path, cells=table.cells(one), true=true)


def _write(rows: list[Prediction], table: ClassTable, output: Path) -> None:
    from lightning_modules.callbacks.predictions import write_table

    known = any(row.true is not None for row in rows)
    lines = [[row.path, *row.cells, *([row.true or ""] if known else [])] for row in rows]
    write_table(output, table, lines, ["true_label"] if known else [])


def _show(rows: list[Prediction], name: str) -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    table = Table(box=None, pad_edge=False, title=name, title_justify="left")
    for title in ("image", "label", "probability", "then"):
        table.add_column(title, justify="right" if title == "probability" else "left", overflow="fold")
    for row in rows[:SHOWN]:
        (label, value), *others = row.best
        then = ", ".join(f"{other} {less:.1%}" for other, less in others[:2])
        table.add_row(escape(row.path), escape(label), f"{value:.1%}", escape(then))
    console = Console()
    console.print(table, highlight=False)
    if len(rows) > SHOWN:
        console.print(f"... and {len(rows) - SHOWN} more", highlight=False)
    if rows[0].true is not None:
        right = sum(row.cells[0] == row.true for row in rows)
        console.print(f"{right} of {len(rows)} are right ({right / len(rows):.2%})", highlight=False)
