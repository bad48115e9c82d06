"""pytest fixtures for those who use botwire: an in-memory `Memory`, and a clock that they can move.

pytest finds them by itself once botwire is installed.

    def test_forgets(botwire_memory, botwire_clock):
        botwire_memory.set("token", "secret", ttl=60)
        botwire_clock.advance(61)
        assert botwire_memory.get("token") is None
"""
