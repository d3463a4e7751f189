"""Options of a run beside those of task, data and trainer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

LoggerName = Literal["csv", "tensorboard", "wandb", "mlflow"]


@dataclass(frozen=True, kw_only=True)
class RunOptions:
    """What a run writes, and how often.

    Attributes:
        name: Name of the run's folder in runs/; METHOD-NAME of the YAML file if missing.
        test_after_fit: After fit, test the best checkpoint and print the report; where a run starts from
            trained or converted weights, test these before it, too.
        report: After a test, write what it came to as one page of HTML, report.html.
        logger: Where values and figures go besides metrics.csv: tensorboard, wandb or mlflow.
        tensorboard: The same as logger tensorboard, as older configurations have it.
        checkpoint_every_n_steps: Optimiser steps between two checkpoints within an epoch; 0: only at its end.
        output: File or folder that predict writes; what the task names if missing: predictions.csv for
            classifiers.
        top_k: Labels in each line of predict's table.
        explain: tokens: predict also draws where the important tokens of each image are.
    """

    name: str | None = None
    test_after_fit: bool = False
    report: bool = False
    logger: LoggerName | list[LoggerName] = "csv"
    tensorboard: bool = False
    checkpoint_every_n_steps: int = 500
    output: str | None = None
    top_k: int = 5
    explain: Literal["tokens"] | None = None
