"""`python -m worldloom`, and what `torchrun -m worldloom` starts."""

from worldloom.cli import main

main()
