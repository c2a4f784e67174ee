"""`python -m halve.cli` is `halve`."""

from halve.cli import main

main()
