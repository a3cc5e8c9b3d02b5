"""The parts of scripts/bench-mirror."""
