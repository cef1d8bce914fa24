"""A made brain with known truth, for the demonstration, the tests and simulated training pairs."""
