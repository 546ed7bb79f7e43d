"""The figures: one look for all, heat maps, and the drawing of the method."""
