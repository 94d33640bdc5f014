"""Settings of a study that takes a second."""

SMALL = {
    "width": 16,
    "layers": 3,
    "heads": 2,
    "feed_forward": 24,
    "context": 32,
    "batch": 4,
    "steps": 8,
    "warmup": 2,
    "checkpoint": 3,
    "validation": 4,
    "questions": 3,
    "seeds": 2,
}
