"""Kernels and crossbars taken off a network."""
