"""Released weights -> params: one table-driven file a format; nothing that is read is ever executed."""
