"""Null models of training trajectories."""
