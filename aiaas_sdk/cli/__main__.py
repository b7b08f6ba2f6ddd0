"""`python -m aiaas_sdk.cli` is `aiaas`."""

from aiaas_sdk.cli import main

main()
