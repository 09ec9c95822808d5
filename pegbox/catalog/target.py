"""A base model as the data desk needs it: its tokens, its limit, its price."""

from pathlib import Path

from pegbox.catalog.models import Resolved
from pegbox.data.survey import Target
from pegbox.data.template import load_template


def target_of(resolved: Resolved, price: float | None = None) -> Target:
    """What a file is checked against. `price`, of a million training tokens, goes before the catalogue's."""
    base = resolved.base
    folder = Path(base.folder)
    return Target(
        name=base.name,
        folder=folder,
        template=load_template(folder),
        limit=resolved.context,
        formats=resolved.formats,
        price=base.price if price is None else price,
    )
