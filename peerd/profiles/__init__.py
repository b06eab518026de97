"""Role profiles: one configuration document for each role, which the peers of that role follow."""
