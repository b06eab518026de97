"""Generated from protos/peerd/v1 by scripts/gen-protos. Never edited."""
