"""The web page of `t2i serve`: a prompt in, pictures out. It writes no file and opens none that a request names."""
