"""The benchmark behind `scripts/bench`: what a relayed event costs, here and elsewhere.

One run starts a paced upstream, puts each peer in turn before it and loads it with streams; see
docs/performance.md for the method. Only the standard library is imported by what measures, so that
nothing of a peer can be faster or slower for its sake.
"""
