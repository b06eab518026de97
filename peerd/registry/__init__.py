"""Which peers there are, what they say of themselves, and whether they are there."""
