"""The Trio side: the llama-server process, its supervisor, the upstream connection, the gate and the exchange."""
