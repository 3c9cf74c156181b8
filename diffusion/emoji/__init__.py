"""The embedded emoji model: its weights and the recipe they come out of."""
