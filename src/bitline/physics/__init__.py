"""How cells depart from their targets."""
