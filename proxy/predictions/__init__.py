"""Predictions: Cog's HTTP API, with streams that can be joined late and resumed."""
