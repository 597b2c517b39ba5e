"""What is learned: tasks with their losses, the cohort and the models, and cross-validation."""
