"""`python -m attnscope`."""

from .cli import main

main()
