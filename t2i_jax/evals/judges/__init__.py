"""Judges of pictures, one file a data set of that name.

`judge(pipe, seed, candidates)` gives tables as text, and their numbers. `rater(pipe, seed)` gives a function of a
sampler: the share of right pictures among those that it draws, and its 95% interval; prompts and noise are the same
for all samplers.
"""
