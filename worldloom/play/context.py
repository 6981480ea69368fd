"""What a server shares between its players: the engine, the starts, the environment, the agent and the trust meter."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from worldloom.agents.actor import Actor, LinearController
from worldloom.data.spec import DataSpec
from worldloom.model import State
from worldloom.play.engine import SIGNALS, Engine
from worldloom.play.session import MAX_NODES, PlaySession
from worldloom.play.starts import Reality, Simulation, Start, describe

if TYPE_CHECKING:
    from worldloom.play.trust import Trust


@dataclass
class ServerContext:
    """The engine, the starts by name (the first is the default), an agent and the trust meter.

    simulate: makes a real environment for a seed, if there is one; its first observation is then the default start.
    """

    engine: Engine
    run: Path
    step: int
    model_hash: str
    starts: dict[str, Start] = field(default_factory=dict)
    simulate: Callable[[int], Simulation] | None = None
    actor: Actor | LinearController | None = None
    trust: "Trust | None" = None
    max_nodes: int = MAX_NODES

    @property
    def spec(self) -> DataSpec:
        return self.engine.model.spec

    @torch.inference_mode()
    def agent_action(self, belief: State) -> np.ndarray:
        """The agent's action `[A]` in `belief` `[P]`."""
        assert self.actor is not None, "there is no agent"
        chosen = self.actor(belief[:1].features)
        return chosen.carried_out(chosen.mode)[0].float().cpu().numpy()

    def begin(self, start: Start, seed: int) -> PlaySession:
        """A session that has observed the context rows of `start`."""
        session = PlaySession(self.engine, start.first, seed, self.max_nodes)
        for action, obs in start.context:
            session.observe(action, obs)
        return session

    def open_start(self, name: str | None, seed: int) -> tuple[Start, Reality | None]:
        """The start called `name` and its reality, if known. Raises `KeyError` for an unknown name."""
        if self.simulate is not None and name in (None, "environment"):
            reality = self.simulate(seed)
            return Start("environment", reality.env.name, reality.begin()), reality
        start = self.starts[next(iter(self.starts)) if name is None else name]
        return start, start.reality()

    def facts(self) -> dict[str, Any]:
        """The part of the `welcome` message that describes the server."""
        model = self.engine.model
        starts = [{"name": start.name, "label": start.label} for start in self.starts.values()]
        if self.simulate is not None:
            starts.insert(0, {"name": "environment", "label": "the real environment"})
        return {
            "mode": "dream",
            "env": None,
            "model": {"family": model.family, "run": self.run.name, "step": self.step, "hash": self.model_hash},
            **describe(self.spec, model.decodes),
            "signals": [key for key in SIGNALS if key in model.decodes],
            "starts": starts,
            "agent": self.actor is not None,
            "trust": None if self.trust is None else {"promise": self.trust.promise},
            "trains": False,
        }
