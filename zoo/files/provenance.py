"""What `zoo.save` is told about weights: where they come from, what they reach, how they were made."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from spiking.arguments import only_known

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

DATASET = ("name", "hub_id", "licence")


@dataclass(frozen=True, kw_only=True)
class Provenance:
    """The facts of a model card; whatever is not stated is not in the card.

    Attributes:
        metrics: what the weights reach, by the name under which it was logged, e.g.
            ``{"test/acc1": 0.982, "test/acc1_t1": 0.91}``.
        measured: on what, and by which command: ``split`` (``test``, ``validation``), ``samples``, ``of``
            and more; see ``Record.measured`` in `zoo.files.description`.
        training: on how many samples, how long, by which versions; see there.
        source: of a conversion: ``name``, ``weights``, ``sha256``; missing: what the model was made of.
        published: the paper's figures for comparison.
        dataset: what they were trained on: a name, or a mapping with ``name``, ``hub_id``, ``licence``.
        method: how they came about: "STBP, cross-entropy of the mean logits".
        command: the command that trained them.
        settings: all its settings, as text; becomes ``training.yaml`` beside the weights.
        seed: its seed.
        hardware: what it ran on.
        origin: ``name``, ``licence`` and ``url`` of the weights that these derive from; missing: what the
            model was loaded with, for a network of timm what its configuration names; ``"own"``: none.
        licence: licence of the weights; missing: that of their origin.
        limits: what a user must know beyond what the card says by itself.
        figures: PNG files for the card.
        label_names: class names in the order of the logits; missing: those the model was loaded with.
        pretrained_cfg: corrections to what the entry says of its inputs (mean, std, input_size, crop_pct).
    """

    metrics: Mapping[str, float] | None = None
    measured: Mapping[str, Any] | None = None
    training: Mapping[str, Any] | None = None
    source: Mapping[str, Any] | None = None
    published: Mapping[str, float] | None = None
    dataset: str | Mapping[str, str | None] | None = None
    method: str | None = None
    command: str | None = None
    settings: str | None = None
    seed: int | None = None
    hardware: str | None = None
    origin: Mapping[str, Any] | Literal["own"] | None = None
    licence: str | None = None
    limits: str | None = None
    figures: Iterable[str | Path] = ()
    label_names: Sequence[str] | None = None
    pretrained_cfg: Mapping[str, Any] | None = None

    @classmethod
    def of(cls, stated: Provenance | None, **facts: Any) -> Provenance:
        """``stated``, with further facts by keyword.

        Raises:
            TypeError: no fact has such a name.
        """
        only_known("zoo.save", facts, [field.name for field in dataclasses.fields(cls)])
        return dataclasses.replace(stated or cls(), **facts)

    def data(self) -> dict[str, str | None]:
        """The dataset as a mapping with all of ``name``, ``hub_id`` and ``licence``.

        Raises:
            TypeError: it says anything else.
        """
        told = {"name": self.dataset} if isinstance(self.dataset, str) else dict(self.dataset or {})
        only_known("dataset", told, DATASET, "key")
        return {key: told.get(key) for key in DATASET}
