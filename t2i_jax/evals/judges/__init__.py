"""Judges of pictures, one file a data set of that name: `judge(pipe, seed, candidates) -> (text, scores)`."""
