"""How near a set of pictures is to another one, by their features: no picture needs a pair."""
