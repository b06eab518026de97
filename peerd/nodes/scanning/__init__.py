"""What is wrong with a node, how badly, and what to do: levels, findings, score and report."""
