"""Processes of Lava, one folder for each back end."""
