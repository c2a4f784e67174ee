"""Each method on its own: arrays, callables and its own config in, results out. Knows no stack, traffic or money."""
