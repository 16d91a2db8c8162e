"""Datasets, readers and text tokenizers; numpy only, no jax."""
