"""What a server has to offer: one model, where walks in it can begin, and who may walk along."""

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
from worldloom.play.scenes import Reality, Scene, Simulation, describe
from worldloom.play.session import MOST_MOMENTS, Session

if TYPE_CHECKING:
    from worldloom.play.trust import Trust


@dataclass
class Stage:
    """The engine, the scenes by name (the first is where walks begin unless another is asked for), and company.

    simulate: makes a real environment for a seed, if there is one; scenes are then its first looks.
    """

    engine: Engine
    run: Path
    step: int
    model_hash: str
    scenes: dict[str, Scene] = field(default_factory=dict)
    simulate: Callable[[int], Simulation] | None = None
    actor: Actor | LinearController | None = None
    trust: "Trust | None" = None
    most_moments: int = MOST_MOMENTS

    @property
    def spec(self) -> DataSpec:
        return self.engine.model.spec

    @torch.inference_mode()
    def agent_action(self, belief: State) -> np.ndarray:
        """What the agent would do in a moment whose particles are `belief`: `[A]`."""
        assert self.actor is not None, "there is no agent"
        chosen = self.actor(belief[:1].features)
        return chosen.carried_out(chosen.mode)[0].float().cpu().numpy()

    def begin(self, scene: Scene, seed: int) -> Session:
        """A walk that has watched the scene's context."""
        session = Session(self.engine, scene.first, seed, self.most_moments)
        for action, obs in scene.context:
            session.watch(action, obs)
        return session

    def opening(self, name: str | None, seed: int) -> tuple[Scene, Reality | None]:
        """The scene called `name`, and what is true in it. Raises `KeyError` for one that is not on offer."""
        if self.simulate is not None and name in (None, "environment"):
            reality = self.simulate(seed)
            return Scene("environment", reality.env.name, reality.begin()), reality
        scene = self.scenes[next(iter(self.scenes)) if name is None else name]
        return scene, scene.reality()

    def facts(self) -> dict[str, Any]:
        """What a page is told of it."""
        model = self.engine.model
        starts = [{"name": scene.name, "label": scene.label} for scene in self.scenes.values()]
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
