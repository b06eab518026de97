"""Nodes of organizations: which networks' machines somebody runs, found out and scanned by jobs on peers."""
