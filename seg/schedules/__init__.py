"""Learning rate schedules, with linear scaling to the batch size and a warm-up."""
