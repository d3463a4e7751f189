"""What a user means by the name of a network and of data, without a YAML file."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cli.errors import CommandError, did_you_mean, summary

if TYPE_CHECKING:
    from datamodules import ClassificationDataModule
    from zoo.describe import Description
    from zoo.files.weights import WeightsCfg

LARGE = 64  # pixels; images of more are cropped as for ImageNet
TASKS = {  # what trains and tests networks, by what they are for
    "classification": "ClassificationTask",
    "regression": "RegressionTask",
    "multi-label": "MultiLabelTask",
    "segmentation": "SegmentationTask",
}


def load(name: str, **arguments: Any) -> Any:
    """A trained network by what ``zoo.load`` takes.

    Args:
        name: an entry, ``timm/NAME``, a folder, a run, or ``hf-hub:OWNER/NAME``.
        **arguments: of the entry.

    Raises:
        CommandError: there is none, or it has no weights.
    """
    import zoo

    try:
        return zoo.load(name, pretrained=True, **arguments)
    except (zoo.UnknownModelError, zoo.CheckpointError, ValueError, TypeError, OSError) as error:
        raise CommandError(summary(error)) from error


def task_of(model: Any, name: str) -> str:
    """What a network is for, as `zoo.task_of` says, where images go in and `TASKS` has it.

    Raises:
        CommandError: it is for something else.
    """
    import zoo

    task = zoo.task_of(model)
    if task.name not in TASKS:
        raise CommandError(
            f"{name} is {task.noun_phrase}, which takes no single images; test and predict with its run:"
            " --config FILE --ckpt_path best"
        )
    return task.name


@dataclass(frozen=True, kw_only=True)
class Data:
    """Data of classes: a data module and its arguments.

    Attributes:
        kind: the data module.
        arguments: as YAML would have them.
    """

    kind: type[ClassificationDataModule]
    arguments: dict[str, Any]

    @property
    def words(self) -> list[str]:
        """The same on the command line."""
        return [
            f"--data={self.kind.__name__}",
            *(f"--data.init_args.{key}={value}" for key, value in self.arguments.items()),
        ]


def data_sets(task: str = "classification") -> dict[str, type[ClassificationDataModule]]:
    """Data sets that networks of a task take, by the names that people type, such as ``mnist5k``."""
    import datamodules
    from datamodules import ClassificationDataModule as Base

    found: dict[str, type[ClassificationDataModule]] = {}
    for kind in vars(datamodules).values():
        if isinstance(kind, type) and issubclass(kind, Base) and kind.title and kind.task == task:
            name, file = kind.__name__.removesuffix("DataModule").lower(), kind.__module__.rpartition(".")[2]
            found[file if file.replace("_", "") == name else name] = kind
    return dict(sorted(found.items()))


def data_of(word: str, model: Any, root: str | None = None) -> Data:
    """The data that a word stands for.

    Args:
        word: name of a data set, or a folder of images sorted by class.
        model: the network that is to see them.
        root: where the data set lies, if not where its data module looks by itself.

    Raises:
        CommandError: neither.
    """
    import zoo
    from datamodules import ImageFolderDataModule

    task = zoo.task_of(model).name
    known = data_sets(task)
    plain = {re.sub(r"\W|_", "", name): kind for name, kind in known.items()}
    if (kind := plain.get(re.sub(r"\W|_", "", word.lower()))) is not None:
        return Data(kind=kind, arguments={} if root is None else {"root": root})
    if task != "classification":
        raise CommandError(
            f"no data set of the task {task} is called '{word}'{did_you_mean(word, known)}\n  data sets:"
            f" {', '.join(known)}; other data: test the run with them, --config FILE"
        )
    if not Path(word).is_dir():
        if "." in Path(word).name or len(Path(word).parts) > 1:
            raise CommandError(f"no such file or folder: {word}")
        raise CommandError(
            f"no data set and no folder is called '{word}'{did_you_mean(word, known)}\n  data sets:"
            f" {', '.join(known)}; or a folder of images sorted by class"
        )
    channels, side, _ = _size(model)
    style = "imagenet" if side > LARGE else "small"
    arguments = {"root": word, "style": style, "image_size": side, "in_chans": channels}
    return Data(kind=ImageFolderDataModule, arguments=arguments)


def own_data(model: Any, name: str) -> str:
    """The name of the data set that a network was trained on.

    Raises:
        CommandError: it does not say, or we have no reader for it.
    """
    import zoo

    title, known = trained_on(name) or "", data_sets(zoo.task_of(model).name)
    for word, kind in known.items():
        if title and title in (kind.title, kind.hub_id):
            return word
    told = f"was trained on {title}, for which there is no reader" if title else "does not say its data"
    raise CommandError(
        f"{name} {told}; name a data set ({', '.join(known)}) or a folder of images sorted by class"
    )


def published(name: str) -> tuple[Description, WeightsCfg | None]:
    """An entry, and the weights that its name means: those of the tag, or the first; None if it has none."""
    import zoo
    from zoo.registry import split_tag

    described, tag = zoo.describe(name), split_tag(name)[1]
    return described, described.weights.get(tag or next(iter(described.weights), ""))


def trained_on(name: str) -> str | None:
    """Title of the data that a network's description names, if it has one."""
    from zoo import locate
    from zoo.files.description import read_description
    from zoo.files.layout import CONFIG_FILE

    if name.startswith("timm/"):
        return None
    if not locate.is_location(name):
        cfg = published(name)[1]
        return None if cfg is None else cfg.dataset
    if locate.is_remote(name):
        return None
    place = locate.place_of(name)
    folder = place if place.is_dir() else place.parent
    return read_description(folder).recorded.dataset if (folder / CONFIG_FILE).is_file() else None


def _size(model: Any) -> tuple[int, int, int]:
    import zoo

    try:
        return zoo.transform(model).input_size
    except ValueError as error:
        raise CommandError(str(error)) from error


def check_fits(model: Any, data: Any, name: str) -> None:
    """Make sure that a trained network and data have the same classes and channels.

    Raises:
        CommandError: they have not.
    """
    for key, title in (("num_classes", "classes"), ("in_chans", "channels")):
        own, theirs = getattr(model, key, None), getattr(data, key)
        if own is not None and own != theirs:
            raise CommandError(
                f"{name} has {own} {title}, but {type(data).__name__} has {theirs}; test it on data that it"
                " was trained for, or train it on these"
            )
