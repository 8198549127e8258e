"""Find the text that means the same: `python -m examples.embed`.

Needs a node that serves an embedding: `atmo node start --serve atmo-encoder`.
"""

from __future__ import annotations

from atmo import SyncClient

NOTES = ("The boiler needs a new valve.", "Grandmother's recipe for plum cake.", "Tax return: due in July.")
QUESTION = "When do I have to file my taxes?"

found = SyncClient().embed([*NOTES, QUESTION])
*notes, question = found.vectors


def likeness(vector: tuple[float, ...]) -> float:
    """Vectors have unit length, so this is the cosine."""
    return sum(a * b for a, b in zip(vector, question, strict=True))


print(f"{len(question)} numbers for each text, by {found.model} on {found.node}")
for vector, note in sorted(zip(notes, NOTES, strict=True), key=lambda pair: -likeness(pair[0])):
    print(f"{likeness(vector):+.2f}  {note}")
