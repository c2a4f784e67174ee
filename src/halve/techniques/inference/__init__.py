"""Techniques that decide who answers, and in how many steps. They make no model."""
