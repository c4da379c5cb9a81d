"""Helper processes that decode hostile formats within limits of time and memory."""
