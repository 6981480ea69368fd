"""What commands say on the terminal, and the checks of numbers that flags share."""

import sys
from collections.abc import Mapping

from worldloom.errors import UserError

# What is above has never been meant, and would end in a number that overflows or memory that does not exist.
MOST = {"threads": 1024, "horizons": 10_000, "steps": 100_000, "context": 100_000, "samples": 10_000}


MOST_OF_OTHERS = 2**32 - 1


def check_counts(at_least_1: Mapping[str, int | None], at_least_0: Mapping[str, int | None]) -> None:
    """Raise `UserError` for the first flag whose number is too small, or too large to be meant; None was not given."""
    for low, flags in ((1, at_least_1), (0, at_least_0)):
        for flag, value in flags.items():
            if value is not None and value < low:
                raise UserError(f"--{flag} {value}: must be at least {low}.")
            most = MOST.get(flag, MOST_OF_OTHERS)
            if value is not None and value > most:
                raise UserError(f"--{flag} {value}: must be at most {most}.")


def say(message: str) -> None:
    """Progress goes to stderr."""
    print(f"worldloom: {message}", file=sys.stderr, flush=True)
