"""Real services for the tests, on loopback."""
