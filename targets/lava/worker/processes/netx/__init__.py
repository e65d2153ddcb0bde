"""The models of the netx back end, and nothing else: Lava runs all that lies here."""
