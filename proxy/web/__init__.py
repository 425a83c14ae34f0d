"""The main listener: the guard around Hypercorn, the front door, the relay and the Quart-Trio app."""
