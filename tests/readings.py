"""What tests of diversity share: the middle of a picture, and objects moved to other places."""

import dataclasses

MIDDLE = 15.5


def moved(readings, corners):
    """The objects of a picture, one after another, to other places."""
    return [dataclasses.replace(reading, y=y, x=x) for reading, (y, x) in zip(readings, corners, strict=True)]
