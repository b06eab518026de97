"""A miner without hardware: a pseudo-terminal that prints what the firmware prints."""
