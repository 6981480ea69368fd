"""What commands say on the terminal."""

import sys
from functools import lru_cache


@lru_cache(maxsize=256)
def say_once(message: str) -> None:
    """`say` what would otherwise be said for each of several environments or files."""
    say(message)


def say(message: str) -> None:
    """Progress goes to stderr."""
    print(f"worldloom: {message}", file=sys.stderr, flush=True)
