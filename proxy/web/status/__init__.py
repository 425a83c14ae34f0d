"""The status page's side of the server: what is told of the model's work, and to whom."""
