"""How models are run: fleets, batches. Changes no answer."""
