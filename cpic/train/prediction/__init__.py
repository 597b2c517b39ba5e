"""Predictions for scans in a folder, whatever its tree."""
