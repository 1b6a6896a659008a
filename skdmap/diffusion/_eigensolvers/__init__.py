"""Leading eigenpairs of a symmetric Markov operator."""
