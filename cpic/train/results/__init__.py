"""What a run gave, and the files that say so."""
