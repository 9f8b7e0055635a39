"""A pair of nodes: settings, processes, journal, records, takeover, and the services beside it."""
