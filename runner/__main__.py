"""`python -m runner`: the command `runner`."""

from runner.cli.main import main

main()
