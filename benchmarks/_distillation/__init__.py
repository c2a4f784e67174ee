"""The teachers and the trainings behind `benchmarks.distillation`."""
