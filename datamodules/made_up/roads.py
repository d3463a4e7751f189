"""Roads as a camera behind a windscreen sees them, and the angle at which a driver would steer.

Axes: N samples, H W pixels.
"""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
from typing_extensions import override

from datamodules.loading.datasets import Arrays
from datamodules.made_up.base import MadeUpDataModule

WHEELBASE, LOOK_AHEAD, HALF_WIDTH = 2.7, 12.0, 3.5  # metres: of the car, to the aimed point, of the road
CAMERA_HEIGHT, FOCAL = 1.4, 0.9  # metres; in widths of the image
NEAREST = 4.0  # metres, at the lower edge
NOISE = 14.0  # grey values of 255


class RoadsDataModule(MadeUpDataModule):
    """Regression: the steering angle on a made-up road, in degrees, left is negative.

    A road of constant curvature lies before the car, which stands beside its middle and not quite along it.
    The angle is that of pure pursuit (Coulter, CMU-RI-TR-92-01): atan(2 L x / d^2) towards the point of the
    middle that is d = 12 m ahead and x to the right, for a wheelbase L of 2.7 m. Brightness and noise differ.

    Batches are (x, y): x ``[B, 1, H, W]``, y float32 ``[B, 1]``.

    Args:
        image_size: H and W, or [height, width].
        kwargs: see `MadeUpDataModule`.
    """

    title = "made-up roads"
    task: ClassVar[str] = "regression"
    linked_facts: ClassVar[tuple[str, ...]] = ("num_outputs", "in_chans", "input_size")
    num_classes = num_outputs = 1
    class_names = ("steering angle, degrees",)

    def __init__(self, *, image_size: int | tuple[int, int] = 32, **kwargs: Any) -> None:
        super().__init__(image_size=image_size, **kwargs)
        self.set_statistics((0.488,), (0.241,))

    @property
    @override
    def native_size(self) -> tuple[int, int]:
        return self.image_size or (32, 32)

    @override
    def draw(self, part: str, count: int, random: np.random.Generator) -> Arrays:
        curvature = random.uniform(-0.035, 0.035, (count, 1, 1))  # of the road, 1 / metres
        offset = random.uniform(-1.5, 1.5, (count, 1, 1))  # of its middle from the car, metres
        heading = random.uniform(-0.12, 0.12, (count, 1, 1))  # of the road against the car

        def middle(distance: Any) -> Any:
            return offset + heading * distance + 0.5 * curvature * distance**2

        height, width = self.native_size
        horizon = height * 0.35
        rows = np.arange(height)[None, :, None] + 0.5
        columns = (np.arange(width)[None, None, :] + 0.5) / width - 0.5
        below = np.maximum(rows - horizon, 1e-3) / (height - horizon)  # 0 at the horizon, 1 at the lower edge
        distance = NEAREST / below
        across = columns * distance / FOCAL - middle(distance)  # metres from the middle of the road
        ground, asphalt, sky = (random.uniform(*span, (count, 1, 1)) for span in _BRIGHTNESS)
        images = np.where(np.abs(across) < HALF_WIDTH, asphalt, ground)
        dashes = (np.abs(across) < 0.25) & (distance % 6 < 3)
        images = np.where(dashes | (np.abs(np.abs(across) - HALF_WIDTH + 0.4) < 0.2), 230.0, images)
        images = np.where(rows < horizon, sky, images)
        images = images + NOISE * random.standard_normal(images.shape)
        aimed = middle(LOOK_AHEAD)[:, 0, :]  # [N, 1]
        angles = np.degrees(np.arctan(2 * WHEELBASE * aimed / LOOK_AHEAD**2))
        return Arrays(images.clip(0, 255).astype(np.uint8)[:, None], angles.astype(np.float32))


_BRIGHTNESS = ((90.0, 150.0), (40.0, 80.0), (150.0, 220.0))  # of ground, asphalt and sky
