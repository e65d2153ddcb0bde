"""What the command line takes and shows: its options, progress bars and tables. Each module is imported on its own."""
