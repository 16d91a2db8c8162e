"""Released weights -> params, one table-driven file a format; numpy, no jax, and nothing read is ever executed."""
