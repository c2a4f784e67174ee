"""Techniques that make new, cheaper models."""
