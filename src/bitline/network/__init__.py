"""Plain float networks, before any chip: what they multiply, and batch norms folded."""
