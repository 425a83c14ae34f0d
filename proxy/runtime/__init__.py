"""The Trio side: the llama-server process, the way to it, the gate and the exchange."""
