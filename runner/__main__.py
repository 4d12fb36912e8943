"""`python -m runner`: the command `runner`."""

from runner.cli import main

main()
