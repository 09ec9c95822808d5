"""When two rows are the same: hashes of what they say, normalised. The check and `pegbox clean` both go by these."""

from dataclasses import dataclass

from pegbox.data.quality.items import Item
from pegbox.data.quality.text import digest, normalise


@dataclass(slots=True)
class Digests:
    """Of one row; not frozen, for speed alone."""

    system: int  # of the system's words and the tools
    prompt: int  # of all before the last learnt answer
    answer: int  # of the last learnt answer
    row: int  # of all of it


def digests(seen: Item) -> Digests:
    system = digest(normalise(seen.system) + (str(seen.tools) if seen.tools else ""))
    prompt, answer = digest(normalise(seen.prompt)), digest(normalise(seen.answer))
    several = seen.trained.count(True) > 1
    whole = normalise(seen.talk) if several else f"{system}:{prompt}:{answer}:{seen.rejected}"
    return Digests(system, prompt, answer, digest(f"{system}:{whole}"))
