"""The graphs that carry a series through its stages, and the engine that runs them."""
