"""`streamvlm train`: run a training plan."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Annotated

import typer

from streamvlm.cli.failures import failure
from streamvlm.errors import StreamVLMError

TINY = Path(__file__).parents[1] / "train" / "tiny.toml"


def train(
    config: Annotated[
        Path, typer.Argument(exists=True, dir_okay=False, help="A TOML plan; without one, the embedded model's.")
    ] = TINY,
    restart: Annotated[bool, typer.Option(help="Forget what the run did before and start over.")] = False,
) -> None:
    """Train, resuming where a stopped run left off.

    The plan's `out` folder receives checkpoint.pt, metrics.jsonl, curves.svg and, at the end, model/, which --model
    accepts. Several processes: accelerate launch -m streamvlm.cli train CONFIG.
    """
    from streamvlm.train.start import open_trainer

    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    try:
        trainer = open_trainer(config, restart=restart)
        trainer.run()
    except (ValueError, StreamVLMError) as error:
        raise failure(error) from None
    except KeyboardInterrupt:
        typer.echo("stopped; the same command continues from the checkpoint", err=True)
        raise typer.Exit(130) from None
    if trainer.accelerator.is_main_process:
        typer.echo(f"trained: {trainer.model_folder}")
