"""One process of the pair: sockets, threads, the QMP monitor, a primary's or secondary's life."""
