"""The HTTP/1.1 server: sockets, connections and requests, strictly framed, as ASGI.

It knows nothing of models, keys or upstreams.
"""
