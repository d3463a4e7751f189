"""ANN-to-SNN conversion. No method has landed yet; training and the zoo do not need it."""
