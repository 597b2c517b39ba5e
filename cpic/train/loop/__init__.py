"""The training loop of one fold: batches, faults, checkpoints, several processes."""
