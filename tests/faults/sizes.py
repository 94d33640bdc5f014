"""Sizes: the commands of `tests/benchmarks/size.py` keep their limits of time and memory."""

from benchmarks.size import measure_all, write_large

from faults.ground import Fault, Ground, Tries

__all__ = ["FAULTS"]

NAME = "a million evaluations, and 100,000 sequences to start"


def sizes(ground: Ground, times: int) -> Tries:
    """Every command once, on a run of 62,500 sequences."""
    place = ground.place()
    run = write_large(place / "run", 62_500)
    notes = []
    for each in measure_all(place, run, 100_000):
        notes.append(f"{each.name} {each.cpu:.0f} s")
        ground.notes[NAME] = ", ".join(notes)
        yield (
            None
            if each.kept
            else f"{each.name}: {each.cpu:.0f} s of CPU time of {each.most_seconds:.0f}, {each.gib:.1f} GiB"
        )


FAULTS = [Fault(name=NAME, tries=sizes, times=5, quick=0)]
