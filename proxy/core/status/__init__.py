"""What the status page is told, decided without sockets, tasks or clocks."""
