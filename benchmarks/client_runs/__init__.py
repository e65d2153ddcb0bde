"""What `benchmarks/clients.py` runs: the ways, the process that runs one, and the neurons that an importer may make."""
