"""The `worldloom` command. Each subcommand is a typed function elsewhere; only the one asked for is imported."""

import sys
from importlib import import_module
from typing import NoReturn

from worldloom.errors import UserError, unknown
from worldloom.interrupts import EXIT_CODE, second_one_ends

COMMANDS = {
    "record": ("worldloom.commands.record:record", "play an environment and save its episodes as a dataset"),
    "import": ("worldloom.commands.convert:convert", "convert a foreign dataset into LeRobotDataset v3.0"),
    "inspect": ("worldloom.commands.inspect:inspect", "the data card: what a dataset holds and what is wrong with it"),
    "train": ("worldloom.commands.train:train", "train a world model on one or several datasets"),
    "evaluate": (
        "worldloom.commands.evaluate:evaluate",
        "evaluate a trained model on held-out episodes: card and report",
    ),
    "learn": ("worldloom.commands.learn:learn", "learn to act in an environment, with a world model of it"),
    "plan": (
        "worldloom.commands.plan:plan",
        "plan with a trained model in the real environment: score card and video",
    ),
    "imagine": ("worldloom.commands.imagine:imagine", "let a trained model dream: a video or a synthetic dataset"),
    "play": ("worldloom.commands.play:play", "play a trained model in the browser: rewind, branch, what if"),
    "augment": (
        "worldloom.commands.augment:augment",
        "mix real episodes with imagined ones that branch from them",
    ),
}


def main() -> None:
    """Run `worldloom COMMAND ...`; a `UserError` becomes one line on stderr and exit code 2."""
    arguments = sys.argv[1:]
    if not arguments or arguments[0] in ("-h", "--help"):
        print(overview())
        return
    if arguments[0] in ("-V", "--version"):
        from worldloom import __version__

        print(f"worldloom {__version__}")
        return
    try:
        with second_one_ends():
            run(arguments[0], arguments[1:])
    except UserError as error:
        fail(str(error))
    except BrokenPipeError:
        sys.exit(0)  # the reader of our output, such as `head`, has closed it
    except OSError as error:
        fail(f"{error.filename or 'the system'}: {error.strerror or error}")
    except MemoryError as error:
        fail(f"out of memory ({error}): make it smaller, such as --batch-size or --image-size")
    except KeyboardInterrupt:
        print("worldloom: stopped by Ctrl-C", file=sys.stderr)
        sys.exit(EXIT_CODE)


def fail(message: str) -> NoReturn:
    print(f"worldloom: error: {message}", file=sys.stderr)
    sys.exit(2)


def run(command: str, arguments: list[str]) -> None:
    """Parse `arguments` by the signature of the command's function and call it."""
    if command not in COMMANDS:
        raise unknown("command", command, COMMANDS)
    import tyro

    from worldloom.flags import renamed

    arguments = renamed(command, arguments)
    module_name, name = COMMANDS[command][0].split(":")
    module = import_module(module_name)
    # The methods of `learn` are its subcommands; your own is known once it is typed.
    function = module.with_methods(arguments) if command == "learn" else getattr(module, name)
    tyro.cli(function, prog=f"worldloom {command}", args=arguments)


def overview() -> str:
    """The help page, written here so that showing it imports nothing heavy."""
    lines = [f"  {name:<10}{words}" for name, (_, words) in COMMANDS.items()]
    return "\n".join(
        [
            "usage: worldloom COMMAND [options]",
            "",
            "World models: record or import episodes, train, evaluate, imagine.",
            "",
            "commands:",
            *lines,
            "",
            "`worldloom COMMAND --help` shows a command's options.",
        ]
    )
