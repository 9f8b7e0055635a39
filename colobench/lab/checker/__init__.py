"""The check of a history: a model of the store, linearizability, and counter-examples."""
