"""What every data set says of a film."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Entry:
    """What a data set says about one film, before anybody opened the file."""

    where: str
    """File and line that name the film, for messages."""
    path: str
    label: int
    patient: str
    study: str
    part: str
    split: str
    left_out: str = ""
    """Why the film goes to the quarantine, however sound its file is."""
