"""The one exception whose message is meant for the person at the keyboard."""


class UserError(Exception):
    """Bad input. Its message is one line: the value, the limit and the way out.

    `train.py` and `t2i` print it to stderr without a traceback and exit with code 2.
    """
