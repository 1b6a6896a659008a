"""The loss of a module on data as a function of its flat parameter vector."""
