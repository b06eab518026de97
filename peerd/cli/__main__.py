"""``python -m peerd.cli``: peerctl where the console script is not installed."""

from peerd.cli import main

main()
