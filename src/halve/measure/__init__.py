"""The measuring room: what a stack costs and how fast it answers."""
