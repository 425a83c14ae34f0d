"""Sans-IO decisions and codecs: plain functions and small state machines, no clock, no socket, no file."""
