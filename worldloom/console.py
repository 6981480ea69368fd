"""What commands say on the terminal."""

import sys


def say(message: str) -> None:
    """Progress goes to stderr."""
    print(f"worldloom: {message}", file=sys.stderr, flush=True)
