"""Where the steps of a stream come from: a recording of events, or a folder of images.

Axes: B batch (1), C channels, H W map.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from cli.errors import CommandError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from torch import Tensor

    from datamodules.events.live import Frame, Tally


@dataclass(frozen=True)
class Step:
    """One time step of a stream.

    Attributes:
        x: float32 ``[1, C, H, W]``, as the network takes it.
        events: that it was made of; 0 for an image.
        end: its end in microseconds since the stream began; the number of images so far for a folder.
    """

    x: Tensor
    events: int
    end: int


@dataclass(frozen=True)
class Cut:
    """How a recording is cut into frames; with neither, into the T frames that the network was made for.

    Attributes:
        milliseconds: of a frame.
        events: of a frame.
        by: ``time`` or ``count``, for T frames.
    """

    milliseconds: float | None = None
    events: int | None = None
    by: str = "time"


class EventSource:
    """Steps of a recording, read some events at a time.

    Args:
        path: the recording.
        model: the network, for its channels, its map and its T.
        cut: how to make frames of it.
        size: H and W of the sensor; missing: as the file says, else as the network's map.

    Raises:
        CommandError: the network does not take events.
        DataError: see `datamodules.events.readers.event_blocks`.
    """

    def __init__(self, path: Path, model: Any, cut: Cut, size: tuple[int, int] | None) -> None:
        from datamodules.events.live import Tally, extent_of
        from datamodules.events.readers import event_blocks, sensor_size
        from datamodules.transforms.events import EventPipeline

        chans, *wanted = model.pretrained_cfg["input_size"]
        if chans not in (2, 3):
            raise CommandError(
                f"this network takes {chans} channels, but events have 2 (darker, brighter), or 3 with their"
                " sum; stream one that was trained on events, such as spiking_cnn_nano.nmnist_t8"
            )
        self.path, self.cut, self.time_steps = path, cut, int(model.time_steps)
        self.size = size or sensor_size(path) or (int(wanted[0]), int(wanted[1]))
        resized = None if self.size == tuple(wanted) else (int(wanted[0]), int(wanted[1]))
        self.pipeline = EventPipeline(resized, sum_channel=chans == 3)
        self.tally: Tally = Tally()
        # the T frames of a recording take a pass over it; a stream of frames of a known length does not
        known = cut.milliseconds is not None or cut.events is not None
        self.extent = None if known else extent_of(event_blocks(path))

    def __iter__(self) -> Iterator[Step]:
        for frame in self._frames():
            counts = torch.from_numpy(frame.counts)[None, None]
            yield Step(self.pipeline(counts)[:, 0], frame.events, frame.end)

    def _frames(self) -> Iterator[Frame]:
        from datamodules.events.live import frames_by_count, frames_by_time
        from datamodules.events.readers import event_blocks

        blocks, T = event_blocks(self.path), self.time_steps
        if self.cut.milliseconds is not None:
            length = max(1, round(1000 * self.cut.milliseconds))
            return frames_by_time(blocks, self.size, length, tally=self.tally)
        if self.cut.events is not None:
            return frames_by_count(blocks, self.size, self.cut.events)
        extent = self.extent
        assert extent is not None
        if self.cut.by == "count":
            return frames_by_count(blocks, self.size, max(1, extent.events // T), most=T)
        length = max(1, (extent.last - extent.first) // T)
        return frames_by_time(blocks, self.size, length, start=extent.first, most=T, tally=self.tally)


class ImageSource:
    """Images of a folder by name, one time step each, as a camera would send them.

    Args:
        folder: the folder; it is searched with its subfolders.
        model: the network, for its preprocessing.

    Raises:
        CommandError: the network does not take images.
        DataError: there are none.
    """

    def __init__(self, folder: Path, model: Any) -> None:
        import zoo
        from datamodules.loading.folder import find_images

        try:
            self.transform = zoo.transform(model)
        except ValueError as error:
            raise CommandError(f"{error}; --events FILE streams a recording") from error
        self.paths = find_images(str(folder))

    def __iter__(self) -> Iterator[Step]:
        from datamodules.loading.decode import open_image

        channels = self.transform.input_size[0]
        for k, path in enumerate(self.paths):
            yield Step(self.transform(open_image(str(path), channels)).unsqueeze(0), 0, k + 1)
