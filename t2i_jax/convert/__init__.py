"""Released weights -> params: where the files come from, and one small table for each format."""
