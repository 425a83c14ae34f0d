"""The main listener: guard, front door, relay, and the Quart-Trio app for the operator."""
