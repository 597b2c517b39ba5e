"""The loop over steps and epochs of one fold: batches, faults, checkpoints, several processes."""
