"""Modules that hide products, rewritten into equal modules made of plain layers."""
