"""Files of event cameras; a folder of one module a maker, and `read_events` for all of them."""

from datamodules.events.readers.aedat import read_aedat2, read_aedat3
from datamodules.events.readers.nmnist import read_nmnist
from datamodules.events.readers.recognise import SUFFIXES, event_blocks, format_of, read_events, sensor_size
from datamodules.events.readers.record import Events, in_order, inside

__all__ = [
    "SUFFIXES",
    "Events",
    "event_blocks",
    "format_of",
    "in_order",
    "inside",
    "read_aedat2",
    "read_aedat3",
    "read_events",
    "read_nmnist",
    "sensor_size",
]
