"""`worldloom play RUN`: open a trained model in the browser and walk into it."""

import errno
import signal
import socket
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import quote

import tyro

from worldloom.errors import UserError
from worldloom.registry import require

if TYPE_CHECKING:
    from worldloom.play.stage import Stage

NEXT_PORTS = 20
MOST_PARTICLES = 1024


def play(
    what: tyro.conf.Positional[str],
    start: Annotated[str | None, tyro.conf.arg(name="from", metavar="DATA:EPISODE:FRAME")] = None,
    image: Path | None = None,
    env: str | None = None,
    options: tuple[str, ...] = (),
    agent: Path | None = None,
    record: Path | None = None,
    step: int | None = None,
    data: Path | None = None,
    particles: int = 4,
    host: str = "127.0.0.1",
    port: int = 8000,
    token: str | None = None,
    sessions: int = 32,
    device: str = "auto",
    threads: int = 1,
    trust: bool = True,
) -> None:
    """Serve a page in which a trained model is played live, with rewind, branches and what-if; or a real environment.

    Args:
        what: folder of a run, or with --record the name of an environment.
        start: where walks begin: 12:40 in the run's own data, or FOLDER:12:40.
        image: a picture as the first thing seen.
        env: the real environment beside the dream, doing what you do.
        options: options of that environment, such as action_repeat=4.
        agent: folder of a policy learned with this very model, which can play too.
        record: play the real environment WHAT, and save every episode as a LeRobot dataset in this folder.
        step: the checkpoint of this step instead of the last one.
        data: where the run's dataset is now, when it moved.
        particles: futures imagined at a time, from which the trust meter tells how sure the model is.
        host: address to bind; any other than this machine's own needs a token.
        port: the next free one is taken when it is in use.
        token: what a page must know; one is made where it is needed.
        sessions: players at a time.
        device: auto, cpu, cuda or cuda:N.
        threads: CPU threads of the model.
        trust: calibrate the trust meter on held-out episodes, which takes a minute the first time.
    """
    for package in ("starlette", "uvicorn", "websockets", "msgspec"):
        require(package, "play")
    check_counts(particles=particles, sessions=sessions, threads=threads)
    if particles > MOST_PARTICLES:
        raise UserError(f"--particles is {particles}, but at most {MOST_PARTICLES} are imagined at a time")
    if options and env is None and record is None:
        raise UserError(f"--options {' '.join(options)}: of which environment? Give --env or --record too")
    from worldloom.play.server import needs_token

    listening = listen(host, port)
    with listening:
        token = needs_token(host, token)
        if record:
            alone = {"from": start, "image": image, "env": env, "agent": agent, "data": data, "step": step}
            for option, given in alone.items():
                if given is not None:
                    raise UserError(f"--{option} belongs to a dream, and --record plays the real {what}: leave it out")
            from worldloom.play.real import real_server

            made = real_server(what, options, record, sessions, token)
        else:
            import torch

            torch.set_num_threads(threads)
            stage = open_stage(Path(what), start, image, env, options, agent, step, data, particles, device, trust)
            made = dream_server(stage, sessions, token)
        bound = listening.getsockname()[1]
        name = "localhost" if host in ("", "127.0.0.1", "0.0.0.0", "::") else f"[{host}]" if ":" in host else host
        address = f"http://{name}:{bound}/"
        print(f"play at {address}{f'?token={quote(token, safe=str())}' if token else ''}   (Ctrl-C ends)", flush=True)
        run(made.app, listening)


def check_counts(**counts: int) -> None:
    for name, value in counts.items():
        if value < 1:
            raise UserError(f"--{name} is {value}, but it must be 1 or more")


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens at `port`, or at the next free one. Raises `UserError` when there is none."""
    if not 0 <= port < 65536:
        raise UserError(f"--port is {port}: it must be between 0 and 65535, where 0 is any that is free")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    for tried in range(port, min(port + NEXT_PORTS, 65536)):
        # The protocol is named because asyncio looks at it before it switches Nagle's delay off: 40 ms an answer.
        made = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            made.bind((host, tried))
            made.listen(128)
        except OSError as error:
            made.close()
            if error.errno not in (errno.EADDRINUSE, errno.EACCES):
                raise UserError(f"--host {host}: cannot be bound ({error.strerror or error})") from error
            continue
        if tried != port:
            print(f"port {port} is in use: taking {tried}", flush=True)
        return made
    raise UserError(f"ports {port} to {port + NEXT_PORTS - 1} are all in use: choose another --port")


def run(app: Any, listening: socket.socket) -> None:
    import uvicorn

    from worldloom.play.server import Limits

    # One byte more than is taken, so that it is ours to say that a message is too large.
    largest = Limits().message_bytes + 1
    # No keep-alive: while a long answer is made nothing is read, pongs neither. Who is silent too long is seen out.
    config = uvicorn.Config(
        app, log_level="warning", ws_max_size=largest, ws_per_message_deflate=False, ws_ping_timeout=None
    )
    server = uvicorn.Server(config)
    if hasattr(signal, "SIGHUP"):  # the terminal was closed: what is being recorded is saved as at Ctrl-C
        signal.signal(signal.SIGHUP, server.handle_exit)
    server.run(sockets=[listening])


def dream_server(stage: "Stage", sessions: int, token: str | None) -> Any:
    from worldloom.play.player import DreamPlayer
    from worldloom.play.server import Access, Limits, Server
    from worldloom.play.turns import Turns

    turns = Turns(stage.engine)
    return Server(
        lambda name, exports: DreamPlayer(name, stage, turns, exports),
        Access(token),
        Limits(sessions=sessions),
        turns.close,
    )


def open_stage(
    path: Path,
    start: str | None,
    image: Path | None,
    env: str | None,
    options: tuple[str, ...],
    agent: Path | None,
    step: int | None,
    data: Path | None,
    particles: int,
    device: str,
    trust: bool,
) -> "Stage":
    """Everything that a dream server offers. Raises `UserError` for whatever does not fit the run."""
    from worldloom.agents.trial.world import World
    from worldloom.data.record import parse_options
    from worldloom.play.engine import Engine
    from worldloom.play.scenes import picture_scene, simulate
    from worldloom.play.stage import Stage
    from worldloom.training import checkpoint
    from worldloom.training.precision import choose_device

    model, run = checkpoint.load(path, str(choose_device(device)), step)
    stage = Stage(Engine(model, particles), path, run.step, run.checkpoint_hash)
    stage.actor = find_actor(path, agent, run, device)
    if env is not None:
        world = World(env, parse_options(options), run.image_size[0])
        simulate(world, model.spec, 0).close()  # refuse another world before anybody plays
        stage.simulate = lambda seed: simulate(world, model.spec, seed)
    if image is not None:
        scene = picture_scene(image, model.spec)
        stage.scenes[scene.name] = scene
    add_recordings(stage, run, start, data)
    if not stage.scenes and stage.simulate is None:
        raise UserError(f"{path} has no data to begin from: give --from, --image or --env")
    if trust:
        stage.trust = calibrated(stage, run, data)
    return stage


def find_actor(path: Path, agent: Path | None, run: Any, device: str) -> Any:
    """The actor of `agent`, or of the run itself where a policy learned in it. Raises `UserError` for another's."""
    from worldloom.agents.saved import AGENT_FILE
    from worldloom.agents.trial.gap import policy_of
    from worldloom.agents.trial.named import Named
    from worldloom.training.precision import choose_device

    if agent is not None:
        named = Named.parse(agent)
        named.check(run)
        return policy_of(named, str(choose_device(device))).actor
    if (path / AGENT_FILE).exists() and (path / "learn.json").exists():
        return getattr(policy_of(Named(path, run.step), str(choose_device(device))), "actor", None)
    return None


def add_recordings(stage: "Stage", run: Any, start: str | None, data: Path | None) -> None:
    """The moments of datasets in which walks can begin. What was asked for comes first."""
    from worldloom.evaluation.windows import open_sources
    from worldloom.play.scenes import chosen_scenes, recorded_scene

    if start is None and (stage.scenes or stage.simulate or not (run.datasets or data)):
        return
    folder, place = None, start
    if start is not None and start.count(":") > 1:
        folder, episode, frame = start.rsplit(":", 2)
        place = f"{episode}:{frame}"
    source = open_sources(run, folder or data)[0]
    scenes = [] if place is None else [recorded_scene(source, place)]
    for scene in [*scenes, *chosen_scenes(source)]:
        stage.scenes.setdefault(scene.name, scene)


def calibrated(stage: "Stage", run: Any, data: Path | None) -> Any:
    """The trust meter, or None with a line that says why there is none."""
    from worldloom.play.trust import load_or_calibrate

    try:
        return load_or_calibrate(stage.run, stage.engine.model, run, data=data, particles=stage.engine.particles)
    except UserError as error:
        print(f"no trust meter: {error}", flush=True)
        return None
