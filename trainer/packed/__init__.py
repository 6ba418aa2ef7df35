"""Several trials in one compiled program (JAX), in slots that are refilled while it runs."""
