"""Coverage-guided fuzzing of everything that comes in: `make fuzz`. Found cases are replayed by the default suite."""
