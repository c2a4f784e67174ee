"""A stack made to run. Imports core only; stages and models are passed in."""
