"""Evaluate a planning agent in one environment: play, compare, write the score card, the video and the agent."""

import platform
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from time import perf_counter
from typing import Any

import torch

from worldloom import __version__
from worldloom.agents.agent import Agent
from worldloom.agents.planning import PlanningMemory
from worldloom.agents.play import Decision, EpisodeResult, play, play_in
from worldloom.agents.reference import NoOpAgent, RandomAgent
from worldloom.agents.repeat import Repeat, innermost
from worldloom.agents.saved import PlanningSettings, make_planner, save_agent
from worldloom.console import say
from worldloom.data.durable import make_folder, remove, write_json
from worldloom.envs.describe import describe
from worldloom.envs.policy import AGENT_FILE
from worldloom.errors import UserError
from worldloom.evaluation.card import command
from worldloom.evaluation.cost import hardware
from worldloom.evaluation.policies.film import Film
from worldloom.evaluation.policies.profile import Profile, table
from worldloom.evaluation.policies.score import Score, calls, episode_to_json, latency, line
from worldloom.evaluation.policies.video import write_video
from worldloom.evaluation.policies.world import World
from worldloom.model import WorldModel
from worldloom.runs.run import Run
from worldloom.stats.bootstrap import RESAMPLES

CARD, VIDEO = "score.json", "imagined.mp4"


@dataclass(frozen=True)
class PolicyEvaluation:
    """One agent, one world, one list of seeds, and the folder that gets the results."""

    model: WorldModel
    run: Run
    settings: PlanningSettings
    world: World
    seeds: tuple[int, ...]
    num_envs: int
    folder: Path

    def evaluate(self, video_steps: int, baselines: bool, profiled: bool) -> dict[str, Any]:
        """Play, score, write and print; returns the score card. `video_steps` 0 films nothing."""
        began = perf_counter()
        profile = Profile(next(self.model.parameters()).device) if profiled else None
        agent = self.settings.make(self.model, self.run, **({"make_clock": profile.clock} if profile else {}))
        fps = self.world.dry_run(agent, self.settings.action_repeat)
        with self._writing():  # said now and not after minutes of play
            make_folder(self.folder)
        film, tally = Film(self.model, self.seeds[0], video_steps), Tally()
        if profile:
            profile.clocks.clear()
        played = self._play(agent, film, tally)
        compared = self._play_baselines() if baselines else {}
        card = self._card(agent, played, compared, tally, profile) | {"seconds": round(perf_counter() - began, 1)}
        self._write(card, film, fps / self.settings.action_repeat)
        print("\n".join(self._lines(played, compared, card)))
        return card

    def _play(self, agent: Agent, film: Film, tally: "Tally") -> list[EpisodeResult]:
        """All seeds. The filmed one goes first and alone, in a world that is drawn."""
        world, limit = self.world, self.world.max_steps
        filmed = 1 if film.most else 0

        def watch(decision: Decision) -> None:
            film.watch(decision)
            tally.watch(decision)

        def spectated() -> Any:
            return world.make_for_spectators(agent.spec)

        played: list[EpisodeResult] = []
        if filmed:
            played += play(agent, spectated, self.seeds[:1], 1, limit, watch)
        if self.seeds[filmed:]:
            played += play(agent, world.make, self.seeds[filmed:], self.num_envs, limit, watch)
        return played

    def _play_baselines(self) -> dict[str, list[EpisodeResult]]:
        """The same seeds with a random action at every decision, and with none."""
        env = self.world.make_without_pictures()
        try:
            spec, times = describe(env), self.settings.action_repeat
            agents = {"random": RandomAgent(spec), "do_nothing": NoOpAgent(spec)}
            return {
                name: play_in(Repeat(agent, times), [env], self.seeds, self.world.max_steps)
                for name, agent in agents.items()
            }
        finally:
            env.close()

    def _write(self, card: dict[str, Any], film: Film, fps: float) -> None:
        written = [CARD, AGENT_FILE]
        with self._writing():
            write_json(self.folder / CARD, card)
            save_agent(self.folder, self.settings, self.run)
            if film.most:
                write_video(film, self.folder / VIDEO, self._caption(film), self.settings.discount, fps)
                written.append(VIDEO)
            else:
                remove(self.folder / VIDEO)  # that of an earlier evaluation would be taken for this one's
        say(f"{self.folder}: {', '.join(written)} written")

    @contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise UserError(f"--out {self.folder}: cannot be written ({error.strerror or error})") from error

    def _caption(self, film: Film) -> str:
        return f"imagined by {self.settings.planner}, {film.horizon} steps ahead"

    def _card(
        self,
        agent: Agent,
        played: Sequence[EpisodeResult],
        compared: dict[str, list[EpisodeResult]],
        tally: "Tally",
        profile: Profile | None,
    ) -> dict[str, Any]:
        settings = self.settings
        spent = latency(played, settings.action_repeat, settings.deadline)
        return {
            "env": self.world.name,
            "options": self.world.options,
            "max_episode_steps": self.world.max_steps,
            "score": Score.of(played).to_json(),
            "floors": {name: Score.of(episodes).to_json() for name, episodes in compared.items()},
            "milliseconds": spent,
            "profile": profile.summary(calls(played, settings.action_repeat)) if profile else None,
            "plans": tally.to_json(),
            "episodes": [episode_to_json(episode) for episode in played],
            "floor_episodes": {
                name: [episode_to_json(episode) for episode in episodes] for name, episodes in compared.items()
            },
            "agent": asdict(settings) | {"settings": asdict(make_planner(settings.planner, settings.settings))},  # type: ignore[call-overload]
            "provenance": self._provenance(agent),
        }

    def _provenance(self, agent: Agent) -> dict[str, Any]:
        device = str(agent.device)
        return {
            "run": str(self.run.path),
            "family": self.run.family,
            "config": self.run.config,
            "checkpoint": {"step": self.run.step, "sha256": self.run.checkpoint_hash},
            "seeds": list(self.seeds),
            "num_envs": self.num_envs,
            "interval": f"95 % bootstrap over episodes, expanded percentiles, {RESAMPLES} resamples; success: Wilson",
            "command": command(),
            "device": device,
            "hardware": hardware(device),
            "threads": torch.get_num_threads(),
            "versions": {"worldloom": __version__, "torch": torch.__version__, "python": platform.python_version()},
            "date": datetime.now(UTC).isoformat(timespec="seconds"),
        }

    def _lines(
        self, played: Sequence[EpisodeResult], compared: dict[str, list[EpisodeResult]], card: dict[str, Any]
    ) -> list[str]:
        score, spent, planner = Score.of(played), card["milliseconds"], card["agent"]["settings"]
        search = ", ".join(f"{planner[key]} {key}" for key in ("samples", "iterations") if key in planner)
        lines = [
            f"{self.world.name}: {len(played)} seeds, {self.settings.planner}, horizon {planner['horizon']}, {search}"
        ]
        lines += line("return", score.episode_return)
        lines += line("success rate", score.success_rate, 3) + line("cost", score.cost) + line("length", score.length)
        for name, episodes in compared.items():
            lines += line(f"return, {name.replace('_', ' ')}", Score.of(episodes).episode_return)
        kept = f", {spent['kept']:.1%} within {spent['deadline']:g} ms" if "kept" in spent else ""
        batch = "" if spent["batch"] == 1 else f" for {spent['batch']} environments at once"
        lines.append(f"  {'ms a decision':<20}{spent['p50']:>10.1f}  p95 {spent['p95']:.1f}{batch}{kept}")
        if card["plans"]["fallbacks"]:
            lines.append(f"  {card['plans']['fallbacks']} plans had no finite score: the fallback action was taken")
        return lines + (table(card["profile"], spent["env_step"]) if card["profile"] else [])


@dataclass
class Tally:
    """A watcher that counts what an agent's plans came to."""

    iterations: list[int] = field(default_factory=list)
    fallbacks: int = 0

    def watch(self, decision: Decision) -> None:
        memory, fresh = innermost(decision.memory)
        if decision.action is None or not fresh or not isinstance(memory, PlanningMemory) or int(memory.age[0]):
            return
        self.iterations.append(int(memory.plan.iterations[0]))
        self.fallbacks += not bool(memory.plan.found[0])

    def to_json(self) -> dict[str, Any]:
        plans = len(self.iterations)
        mean = sum(self.iterations) / plans if plans else None
        return {"plans": plans, "mean_iterations": mean, "fallbacks": self.fallbacks}
