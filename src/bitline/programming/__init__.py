"""From integer weights to the cells of one programmed chip."""
