"""`python -m renoise` is the console script `renoise`."""

from renoise.apps.cli import main

main()
