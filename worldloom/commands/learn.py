"""The command `worldloom learn`."""

from typing import Annotated

from tyro.conf import arg, subcommand

from worldloom.learning.settings import CMASettings, DreamerSettings, LearnSettings, TDMPCSettings


def learn(
    settings: Annotated[
        Annotated[TDMPCSettings, subcommand("tdmpc")]
        | Annotated[DreamerSettings, subcommand("dreamer")]
        | Annotated[CMASettings, subcommand("cma")],
        arg(name=""),
    ],
) -> None:
    """Learn to act in an environment while acting in it, or inside a trained model."""
    if isinstance(settings, CMASettings):
        from worldloom.learning.evolving import evolve_inside

        return evolve_inside(settings)
    if isinstance(settings, DreamerSettings) and not settings.collects:
        from worldloom.learning.frozen import learn_inside

        return learn_inside(settings)
    assert isinstance(settings, LearnSettings)
    from worldloom.learning.loop import run_learning

    return run_learning(settings)
