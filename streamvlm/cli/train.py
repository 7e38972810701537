"""`streamvlm train`: train the embedded model from a plan."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

TINY = Path(__file__).parents[1] / "train" / "tiny.toml"


def train(
    config: Annotated[Path, typer.Argument(exists=True, dir_okay=False, help="A TOML plan.")] = TINY,
    restart: Annotated[bool, typer.Option(help="Ignore the run's checkpoint and start over.")] = False,
) -> None:
    """Train, resuming where a stopped run left off; the model lands in the plan's `out`/model."""
    import logging
    import shutil

    from streamvlm.train.loop import Trainer, summary
    from streamvlm.train.plan import load_plan

    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    plan = load_plan(config)
    if restart:
        shutil.rmtree(plan.out / "model", ignore_errors=True)  # with its tokenizer
    trainer = Trainer(plan)
    if not restart:
        trainer.resume()
    trainer.run()
    typer.echo(f"{plan.out / 'model'}: {summary(trainer.validate(plan.stages[-1]))}")
