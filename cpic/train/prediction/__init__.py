"""Predictions for scans in a folder of any structure."""
