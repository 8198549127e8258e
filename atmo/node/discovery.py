"""temporary"""
from __future__ import annotations
import asyncio, json, os
from atmo.ids import format_peer, parse_multiaddr
class Discovery:
    def __init__(self, config, address, mesh, api, found):
        self.c, self.a, self.m, self.api, self.found = config, address, mesh, api, found
        self.t=None
    async def start(self, seeds, linked):
        self.linked=linked
        d=self.c.runtime/"nodes"; d.mkdir(parents=True,exist_ok=True,mode=0o700)
        self.f=d/f"{format_peer(self.a.peer)}.json"
        self.f.write_text(json.dumps({"name":self.c.node.name,"peer_id":format_peer(self.a.peer),"pid":os.getpid(),"address":str(self.a),"api":str(self.api)}))
        for s in seeds: self.found(s)
        self.scan()
        self.t=asyncio.create_task(self.loop())
    def scan(self):
        for f in (self.c.runtime/"nodes").glob("*.json"):
            if f!=self.f:
                try: self.found(parse_multiaddr(json.loads(f.read_text())["address"]))
                except Exception: pass
    async def loop(self):
        while True:
            await asyncio.sleep(.25); self.scan()
    async def settled(self): await asyncio.sleep(.2)
    def problems(self, n): return []
    async def close(self):
        if self.t: self.t.cancel()
        if hasattr(self,"f"): self.f.unlink(missing_ok=True)
