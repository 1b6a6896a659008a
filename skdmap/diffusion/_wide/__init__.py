"""Samples of many columns, read by blocks of columns."""
