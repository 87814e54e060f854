"""Training base learners: recipe, run folder, samplers, loop, heads and backbones."""
