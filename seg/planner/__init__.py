"""Time, memory and cost of a training on hardware that need not be there: facts, prices, and the estimate."""
