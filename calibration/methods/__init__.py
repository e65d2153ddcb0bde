"""One module per calibration method."""
