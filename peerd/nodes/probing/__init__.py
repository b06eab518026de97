"""What is sent to a node's host and what its answers say, within what both sides allow."""
