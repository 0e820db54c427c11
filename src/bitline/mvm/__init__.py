"""What the chip answers."""
