"""What the mesh has, where a request would go and why, and what happened: `python -m examples.look`.

Needs a running node: `atmo node start`.
"""

from __future__ import annotations

from atmo import SyncClient

client = SyncClient()

for node in client.mesh().nodes:
    print(f"{node.name:<12} {node.state:<8} load {node.load:.2f}  {', '.join(node.capabilities)}")
for model in client.models().served:
    print(f"{model.id:<32} {model.name:<20} at {', '.join(model.nodes)}")

decision = client.route("What is 2+2?", max_load=4)
print(f"\nIt would go to {decision.node}, to {decision.capability}:")
print("\n".join(f"  {line}" for line in decision.lines))

# An answer knows its request, and the decision can be asked for afterwards.
answer = client.ask("What is 2+2?", timeout_s=30)
print(f"\n{client.explain(answer.request_id).lines[0]}")

# Without follow=False it goes on with what happens from now on.
for event in client.events(follow=False):
    print(f"{event.seq} {event.kind:<10} {event.name} {event.detail}")
