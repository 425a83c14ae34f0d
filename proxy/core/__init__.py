"""Sans-IO decisions and codecs: no clock, no socket, no file."""
