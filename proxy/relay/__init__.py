"""One proxied request from its head to its end; both listeners carry their requests by it."""
