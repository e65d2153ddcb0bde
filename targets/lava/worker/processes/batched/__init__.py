"""The processes of the batched back end, and nothing else: Lava runs all that lies here."""
