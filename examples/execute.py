"""Say what is to be done and let the mesh find who can: `python -m examples.execute`.

Needs a node that serves a classifier: `atmo node start --serve atmo-tone --serve atmo-nano`.
"""

from __future__ import annotations

from atmo import SyncClient
from atmo.errors import NoRoute

INTENT = "Is this review positive or negative?"
REVIEWS = (
    "It broke after a day, what a waste.",
    "I love it, the best I ever had.",
    "Works exactly as promised, very happy.",
    "Never again. Rude staff and cold food.",
)
client = SyncClient()

# The intent decides where it goes, the input is what it is done with.
judged = client.execute(INTENT, REVIEWS[0])
print(f"{judged.text:<9} {dict(judged.labels)}  by {judged.node}\n")

# Many at once, at most four on their way; each has an answer or an error, in the order of the jobs.
jobs = [{"intent": INTENT, "input": review} for review in REVIEWS]
jobs.append({"intent": INTENT, "input": "Too expensive.", "constraints": {"residency": "the moon"}})
for outcome in client.execute_batch(jobs, at_once=4, timeout_s=30):
    said = outcome.unwrap().text if outcome.ok else f"nobody: {outcome.error}"
    print(f"{jobs[outcome.number]['input']:<42} {said}")

# What must hold for whoever answers. Nobody decodes a billion tokens a second, and the error says so.
try:
    client.execute("Say hello", min_tps=1e9)
except NoRoute as error:
    print(f"\n{error}")
