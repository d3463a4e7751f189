"""From a model to a functional graph, and from there to one over time."""
