"""Where memories are kept. A store does one thing: `execute(ops)`; see `base`."""
