"""Co-optimize neural networks and the crossbars that run them."""
