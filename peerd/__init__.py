"""peerd: the daemon that every machine of a fleet runs. The architecture is in docs/architecture.md."""

import os

# Before anybody imports grpc: its fork handlers would crash children that Python forks.
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")
# It writes a line for each broken handshake of any stranger, which would fill the log; what matters we log ourselves.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")

__version__ = "0.1.0"
