"""Sessions of two nodes, the records they leave, and what is made of them."""
