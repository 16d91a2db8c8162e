"""The training loop's parts: state, optimizer, sharding, checkpoints, metrics, run folders."""
