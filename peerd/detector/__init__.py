"""Who is there: SWIM with Lifeguard's local health, at a cost per peer that does not grow with the mesh."""
