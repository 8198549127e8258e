"""`atmo mesh watch`: the mesh, live, in a terminal.

    node ── /api/mesh, each second ──┐
         ── /api/events, a stream ───┴─> feed.py ──> story.py ──┐
    keyboard ── keys.py ── view.py ────────────────────────────┴─> frame.py (panes, details) ──> app.py: rich's Live

Everything between the feed and `Live` is pure. `python -m atmo.cli.watch` shows all pages with an invented mesh.
"""
