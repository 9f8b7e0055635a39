"""The explorer: every interleaving of two nodes and their arbiter, walked by the nodes' tables.

The explorer walks all states that a pair and its arbiter can reach, with the tables that the nodes
use, `Arbiter` itself, and everything around them as bad as it may be: a node suspects its peer
whenever it likes, and stands still for as long as it likes (that is what a stop is: others move);
nodes and the arbiter die between any two steps; each message between the nodes may be lost, and so
all of them, when their link is cut; a question or an answer arrives never, late, or again and
again. Only the number of the guest's outputs is bounded.
"""
