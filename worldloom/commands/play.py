"""`worldloom play RUN`: act in a trained model, in the browser."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import quote

from tyro.conf import Positional, arg

from worldloom.errors import UserError
from worldloom.flags import Allow
from worldloom.limits import as_flag, at_least, between, check_limits
from worldloom.registry import allow, require

if TYPE_CHECKING:
    from worldloom.play.context import ServerContext


@dataclass(frozen=True, kw_only=True)
class PlaySettings:
    """Serve a page in which a trained model, or a real environment, is played live, with rewind and branches."""

    what: Positional[str]
    """Folder of a run, or with --record the name of an environment."""
    start: Annotated[str | None, arg(name="from", metavar="DATA:EPISODE:FRAME")] = None
    """Where sessions start: 12:40 in the run's own data, or FOLDER:12:40."""
    image: Path | None = None
    """A picture as the first observation."""
    env: str | None = None
    """The real environment beside the model, which takes the same actions."""
    options: tuple[str, ...] = ()
    """Options of that environment, such as action_repeat=4."""
    agent: Path | None = None
    """Folder of a policy learned with this very model, which can play too."""
    record: Path | None = None
    """Play the real environment WHAT, and save every episode as a LeRobot dataset in this folder."""
    step: int | None = None
    """The checkpoint of this step instead of the last one."""
    data: Path | None = None
    """Where the run's dataset is now, when it moved."""
    particles: Annotated[int, between(1, 1024)] = 4
    """Particles of every node; their spread is an input of the trust meter."""
    host: str = "127.0.0.1"
    """Address to bind; any other than this machine's own needs a token."""
    port: int = 8000
    """Port; if in use, the next free one."""
    token: str | None = None
    """Token that a page must send; created where one is needed."""
    sessions: Annotated[int, at_least(1)] = 32
    """Players at a time."""
    device: str = "auto"
    """auto, cpu, cuda or cuda:N."""
    threads: Annotated[int, between(1, 1024)] = 1
    """CPU threads of the model."""
    trust: bool = True
    """Calibrate the trust meter on held-out episodes, which takes a minute the first time."""
    allow: Allow = ()


def play(settings: Annotated[PlaySettings, arg(name="")]) -> None:
    """Serve a page in which a trained model, or a real environment, is played live, with rewind and branches."""
    for package in ("starlette", "uvicorn", "websockets", "msgspec"):
        require(package, "play")
    check_limits(settings)
    allow(*settings.allow)
    if settings.options and settings.env is None and settings.record is None:
        raise UserError(f"--options {' '.join(settings.options)}: of which environment? Give --env or --record too")
    from worldloom.play.access import needs_token
    from worldloom.play.serving import listen, run

    listening = listen(settings.host, settings.port)
    with listening:
        token = needs_token(settings.host, settings.token)
        made = record_server(settings, token) if settings.record else model_server(settings, token)
        bound = listening.getsockname()[1]
        name = host_name(settings.host)
        address = f"http://{name}:{bound}/"
        print(f"play at {address}{f'?token={quote(token, safe=str())}' if token else ''}   (Ctrl-C ends)", flush=True)
        run(made.app, listening)


def host_name(host: str) -> str:
    """The name of the bound address for a browser on this machine."""
    if host in ("", "127.0.0.1", "0.0.0.0", "::"):
        return "localhost"
    return f"[{host}]" if ":" in host else host


def record_server(settings: PlaySettings, token: str | None) -> Any:
    """A real environment, played and recorded. Raises `UserError` for options that only a model has."""
    from worldloom.play.real import real_server

    assert settings.record is not None
    for name in ("start", "image", "env", "agent", "data", "step"):
        if getattr(settings, name) is not None:
            flag = "--from" if name == "start" else as_flag(name)
            raise UserError(f"{flag} belongs to a model, and --record plays the real {settings.what}: leave it out")
    return real_server(settings.what, settings.options, settings.record, settings.sessions, token)


def model_server(settings: PlaySettings, token: str | None) -> Any:
    """The server of a trained model."""
    import torch

    torch.set_num_threads(settings.threads)
    return serve_context(open_context(settings), settings.sessions, token)


def serve_context(context: "ServerContext", sessions: int, token: str | None) -> Any:
    """The web server of a context."""
    from worldloom.play.access import Access
    from worldloom.play.player import ModelPlayer
    from worldloom.play.server import Server, ServerLimits
    from worldloom.play.turns import Turns

    turns, limits = Turns(context.engine), ServerLimits(sessions=sessions)
    return Server(lambda name, exports: ModelPlayer(name, context, turns, exports), Access(token), limits, turns.close)


def open_context(settings: PlaySettings) -> "ServerContext":
    """The context of a model's server. Raises `UserError` for options that do not fit the run."""
    from worldloom.envs.options import parse_options
    from worldloom.evaluation.policies.world import World
    from worldloom.play.context import ServerContext
    from worldloom.play.engine import Engine
    from worldloom.play.starts import picture_start, simulate
    from worldloom.runs import checkpoint
    from worldloom.runs.precision import choose_device

    path, device = Path(settings.what), str(choose_device(settings.device))
    model, run = checkpoint.load(path, device, settings.step)
    context = ServerContext(Engine(model, settings.particles), path, run.step, run.checkpoint_hash)
    context.actor = find_actor(path, settings.agent, run, device)
    if settings.env is not None:
        world = World(settings.env, parse_options(settings.options), run.side)
        simulate(world, model.spec, 0).close()  # refuse another environment before the server starts
        context.simulate = lambda seed: simulate(world, model.spec, seed)
    if settings.image is not None:
        start = picture_start(settings.image, model.spec)
        context.starts[start.name] = start
    add_recordings(context, run, settings.start, settings.data)
    if not context.starts and context.simulate is None:
        raise UserError(f"{path} has no data to start from: give --from, --image or --env")
    if settings.trust:
        context.trust = calibrated(context, run, settings.data)
    return context


def find_actor(path: Path, agent: Path | None, run: Any, device: str) -> Any:
    """The actor of `agent`, or of the run itself where a policy learned in it. Raises `UserError` for another's."""
    from worldloom.agents.saved import AGENT_FILE
    from worldloom.evaluation.policies.dream_to_real import policy_of
    from worldloom.runs.named import Named

    if agent is not None:
        named = Named.parse(agent)
        named.check(run)
        return policy_of(named, device).actor
    if (path / AGENT_FILE).exists() and (path / "learn.json").exists():
        return getattr(policy_of(Named(path, run.step), device), "actor", None)
    return None


def add_recordings(context: "ServerContext", run: Any, chosen: str | None, data: Path | None) -> None:
    """Add starts of the run's datasets; the chosen one comes first."""
    from worldloom.play.starts import chosen_starts, recorded_start
    from worldloom.runs.sources import open_sources

    if chosen is None and (context.starts or context.simulate or not (run.datasets or data)):
        return
    folder, row = None, chosen
    if chosen is not None and chosen.count(":") > 1:
        folder, episode, frame = chosen.rsplit(":", 2)
        row = f"{episode}:{frame}"
    source = open_sources(run, folder or data)[0]
    starts = [] if row is None else [recorded_start(source, row)]
    for start in [*starts, *chosen_starts(source)]:
        context.starts.setdefault(start.name, start)


def calibrated(context: "ServerContext", run: Any, data: Path | None) -> Any:
    """The trust meter, or None with a printed reason."""
    from worldloom.play.trust import load_or_calibrate

    try:
        return load_or_calibrate(context.run, context.engine.model, run, data=data, particles=context.engine.particles)
    except UserError as error:
        print(f"no trust meter: {error}", flush=True)
        return None
