"""The main listener: front door, vitals, and the Quart-Trio app for the operator."""
