"""The processes of the faithful back end, and nothing else: Lava runs all that lies here."""
