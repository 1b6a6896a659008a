"""Snapshots in memory and on disk."""
