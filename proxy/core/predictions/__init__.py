"""Predictions without I/O: their states and Cog's shapes, the events of each, and what is kept."""
