"""A module for each client: `neurons(layer)` makes a layer of its own neurons, or says what it cannot express.

A module imports its client when it is imported itself, which `cos_export.clients.load` does.
"""
