"""Models whose heads are known: planted circuits, and the recipe of the embedded pocket model."""
