"""What only real sockets and processes show: outsiders, dishonest members, strange programs, dead and stopped peers."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import socket
import statistics
import threading
import time
from collections.abc import AsyncIterator, Callable, Sequence

import psutil
import pytest
import pytest_asyncio
import zmq

from atmo.errors import PeerUnreachable, PortInUse, TransportError
from atmo.ids import MeshId, Multiaddr, format_peer
from atmo.keys import CurveKeys, Identity, Passport
from atmo.transport import sockets, wire
from atmo.transport.base import BULK_WINDOW_BYTES, MAX_BACKLOG_BYTES, Lane, Received, TransportEvent
from atmo.transport.hosts import reachable_host
from atmo.transport.link import LinkTiming
from atmo.transport.zeromq import ZmqTransport
from tests.transport.child import STALL
from tests.transport.support import Child, End, Lab, Member, Raw, enrol, link, receive, until

IMPATIENT = LinkTiming(dial_s=0.4)


@pytest_asyncio.fixture
async def lab() -> AsyncIterator[Lab]:
    async with Lab("zeromq") as lab:
        yield lab


# Outsiders


@pytest.mark.asyncio
async def test_an_unknown_curve_key_reaches_nothing_behind_the_door(lab: Lab) -> None:
    node, member = await lab.start(), enrol(lab.root)
    with Raw(member) as known, Raw(Member(member.identity, CurveKeys.generate(), member.credential)) as unknown:
        introduction, server = known.introduce(node.transport.address)
        for port in (introduction.control_port, introduction.gossip_port, introduction.bulk_port):
            connection = unknown.connect(port, server)
            connection.send(unknown.hello())
            await until(connection.monitor.events)  # the handshake failed
            assert connection.receive() is None
    assert not node.events


@pytest.mark.asyncio
async def test_a_forged_credential_is_refused_at_the_door(lab: Lab) -> None:
    node, outsider = await lab.start(), Identity.generate()
    forged = enrol(outsider)
    stolen = enrol(lab.root).credential
    half = type(stolen)(stolen.membership, forged.credential.binding)
    with Raw(Member(forged.identity, forged.curve, half)) as raw:
        answer = wire.decode_door(raw.knock(node.transport.address))
    assert isinstance(answer, wire.Refusal)
    assert "different peers" in answer.text


@pytest.mark.asyncio
async def test_a_wrong_version_at_the_door_is_refused_by_name(lab: Lab) -> None:
    node = await lab.start()
    with Raw(enrol(lab.root)) as raw:
        future = wire.MAGIC + b"\x09whatever comes later"
        answer = wire.decode_door(raw.knock(node.transport.address, future))
    assert isinstance(answer, wire.Refusal)
    assert answer.code == "version"
    assert f"version {wire.PROTOCOL_VERSION}" in answer.text


@pytest.mark.asyncio
async def test_garbage_at_every_port_changes_nothing(lab: Lab) -> None:
    node, peer = await lab.start(), await lab.start()
    with Raw(enrol(lab.root)) as raw:
        introduction, _ = raw.introduce(node.transport.address)
    ports = [introduction.control_port, introduction.gossip_port, introduction.bulk_port, node.transport.address.port]
    noise = [b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", os.urandom(70_000), b"\xff" * 5000, b"\x00" * 12, b"\xff" + bytes(8)]
    for port in ports:
        for garbage in noise:
            with socket.create_connection(("127.0.0.1", port), timeout=5) as stranger:
                try:
                    stranger.sendall(garbage)
                except OSError:
                    pass  # it hung up on us, as it may
    assert not node.events
    await link(peer, node)
    peer.transport.send(node.peer, b"as ever")
    await until(lambda: node.frames(Lane.CONTROL) == [b"as ever"])


@pytest.mark.asyncio
async def test_visitors_who_say_nothing_do_not_keep_others_out(lab: Lab) -> None:
    node, peer = await lab.start(), await lab.start()
    address = (node.transport.address.host, node.transport.address.port)
    silent = [socket.create_connection(address, timeout=5) for _ in range(200)]
    try:
        await link(peer, node)
    finally:
        for visitor in silent:
            visitor.close()


# Dishonest members


async def greet(raw: Raw, node: End) -> tuple[sockets.Wire, wire.Introduction, Passport]:
    """Open a link as a member would, by hand; its control connection, and what the introduction said."""
    introduction, server = raw.introduce(node.transport.address)
    control = raw.connect(introduction.control_port, server)
    control.send(raw.hello())
    assert wire.decode_hello(await receive(control)).peer == node.peer
    await until(lambda: node.ups())
    return control, introduction, server


@pytest.mark.asyncio
async def test_nothing_is_delivered_before_hello(lab: Lab) -> None:
    node = await lab.start()
    with Raw(enrol(lab.root)) as raw:
        introduction, server = raw.introduce(node.transport.address)
        control = raw.connect(introduction.control_port, server)
        control.send(wire.DATA + b"too early")
        control.send(wire.GOSSIP + b"too early")
        control.send(raw.hello())
        assert (await receive(control))[:1] == wire.HELLO
        control.send(wire.DATA + b"in time")
        await until(lambda: node.frames(Lane.CONTROL))
    assert node.frames(Lane.CONTROL) == [b"in time"]
    assert not node.frames(Lane.GOSSIP)


@pytest.mark.asyncio
async def test_a_member_cannot_greet_in_anothers_name(lab: Lab) -> None:
    node, victim = await lab.start(), Identity.generate()
    with Raw(enrol(lab.root)) as raw:
        introduction, server = raw.introduce(node.transport.address)
        control = raw.connect(introduction.control_port, server)
        control.send(raw.hello(peer=victim.public))
        assert "another peer" in wire.decode_bye(await receive(control))
    assert not node.events


@pytest.mark.asyncio
async def test_a_member_of_another_version_is_told_so(lab: Lab) -> None:
    node = await lab.start()
    with Raw(enrol(lab.root)) as raw:
        introduction, server = raw.introduce(node.transport.address)
        control = raw.connect(introduction.control_port, server)
        control.send(wire.HELLO + b"\x09" + raw.hello()[2:])
        assert "version 9" in wire.decode_bye(await receive(control))
    assert not node.events


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("frame", "reason"),
    [
        (b"\x63what is this", "kind 63"),
        (b"", "kind nothing"),
        (wire.ACK + (1 << 40).to_bytes(8, "big"), "not sent"),
        (wire.GRANT + (1 << 40).to_bytes(8, "big"), "gave back"),
        (wire.PING + b"short", "number of 5 bytes"),
        (wire.HELLO + b"\x01again", "kind 02"),
        (wire.BYE + b"so\nlong \xff", "so?long"),
    ],
)
async def test_a_broken_rule_ends_the_link_and_names_the_rule(lab: Lab, frame: bytes, reason: str) -> None:
    node = await lab.start()
    with Raw(enrol(lab.root)) as raw:
        control, _, _ = await greet(raw, node)
        control.send(frame)
        await until(lambda: node.downs())
    assert reason in node.downs()[0].reason


@pytest.mark.asyncio
async def test_who_sends_more_bulk_than_granted_loses_the_link(lab: Lab) -> None:
    node = await lab.start()
    with Raw(enrol(lab.root)) as raw:
        _, introduction, server = await greet(raw, node)
        bulk = raw.connect(introduction.bulk_port, server)
        bulk.send(wire.encode_number(wire.HELLO, 1))
        for _ in range(BULK_WINDOW_BYTES // (1 << 20) + 1):
            bulk.send(bytes(1 << 20))
        await until(lambda: node.downs())
    assert "beyond its window" in node.downs()[0].reason
    assert sum(map(len, node.frames(Lane.BULK))) <= BULK_WINDOW_BYTES


@pytest.mark.asyncio
async def test_a_newer_hello_replaces_the_link_and_a_late_one_is_ignored(lab: Lab) -> None:
    node = await lab.start()
    with Raw(enrol(lab.root)) as raw:
        _, introduction, server = await greet(raw, node)
        late, anew, restarted = (raw.connect(introduction.control_port, server) for _ in range(3))
        late.send(raw.hello(sequence=0))
        anew.send(raw.hello(sequence=2))
        await until(lambda: len(node.ups()) == 2)
        restarted.send(raw.hello(sequence=1, instance=b"reborn!!"))
        await until(lambda: len(node.ups()) == 3)
        assert late.receive() is None
    assert [down.reason for down in node.downs()[:2]] == ["the peer dialled anew", "the peer restarted"]


@pytest.mark.asyncio
async def test_a_bulk_connection_of_an_older_link_is_ignored(lab: Lab) -> None:
    node = await lab.start()
    with Raw(enrol(lab.root)) as raw:
        _, introduction, server = await greet(raw, node)
        stale, fresh = (raw.connect(introduction.bulk_port, server) for _ in range(2))
        stale.send(wire.encode_number(wire.HELLO, 0))
        stale.send(b"of yesterday")
        fresh.send(wire.encode_number(wire.HELLO, 1))
        fresh.send(b"of today")
        await until(lambda: node.frames(Lane.BULK))
    assert node.frames(Lane.BULK) == [b"of today"]


FUZZ_FRAMES = 2000


@pytest.mark.asyncio
async def test_random_frames_of_a_member_never_end_the_node(lab: Lab) -> None:
    """Whatever a member sends on its connections, the node lives and serves others."""
    node, honest = await lab.start(), await lab.start()
    await link(honest, node)
    rng = random.Random(20)
    with Raw(enrol(lab.root)) as raw:
        introduction, server = raw.introduce(node.transport.address)
        control, bulk = raw.connect(introduction.control_port, server), raw.connect(introduction.bulk_port, server)
        for number in range(1, FUZZ_FRAMES):
            if rng.random() < 0.1:
                control.send(raw.hello(sequence=number))
                bulk.send(wire.encode_number(wire.HELLO, number))
            noise = rng.randbytes(rng.choice((0, 1, 2, 8, 9, 300)))
            control.send(bytes([rng.randrange(10)]) + noise)
            bulk.send(noise)
        control.socket.send_multipart([b"many", b"parts"] * 50)
        control.send(raw.hello(sequence=FUZZ_FRAMES))
        await until(lambda: node.ups()[-1].peer == raw.member.identity.public)
        honest.transport.send(node.peer, b"undisturbed")
        await until(lambda: b"undisturbed" in node.frames(Lane.CONTROL, honest.peer))
    assert honest.transport.linked() == {node.peer}


# Many at once


@pytest.mark.asyncio
async def test_a_mesh_in_which_everyone_dials_everyone_settles_with_one_link_each(lab: Lab) -> None:
    ends = [await lab.start() for _ in range(8)]
    for one in ends:
        for other in ends:
            if one is not other:
                one.transport.dial(other.transport.address)
    await until(lambda: all(len(end.transport.linked()) == len(ends) - 1 for end in ends))

    def everyone_heard_everyone() -> bool:
        if all(len(set(end.frames(Lane.GOSSIP))) == len(ends) - 1 for end in ends):
            return True
        for end in ends:  # said again: this lane may lose a frame
            end.transport.publish(b"from " + end.peer)
        return False

    await until(everyone_heard_everyone)
    assert all(len(end.ups()) == len(ends) - 1 for end in ends)
    assert not any(end.downs() or end.failures() for end in ends)


@pytest.mark.asyncio
async def test_links_that_come_and_go_leave_both_ends_of_one_mind(lab: Lab) -> None:
    ends = [await lab.start() for _ in range(5)]
    rng = random.Random(3)
    for _ in range(120):
        one, other = rng.sample(ends, 2)
        if other.peer in one.transport.linked():
            one.transport.hang_up(other.peer, "for the test")
        else:
            one.transport.dial(other.transport.address)
            if rng.random() < 0.5:
                other.transport.dial(one.transport.address)
        await asyncio.sleep(rng.choice((0, 0, 0.003, 0.01)))

    def agree() -> bool:
        return all(
            (one.peer in other.transport.linked()) == (other.peer in one.transport.linked())
            for one in ends
            for other in ends
        )

    await asyncio.sleep(0.2)
    await until(agree)


# Strange programs behind an address


def listener() -> socket.socket:
    server = socket.create_server(("127.0.0.1", 0))
    server.settimeout(5)
    return server


async def failure(node: End, address: Multiaddr) -> str:
    node.transport.dial(address)
    await until(lambda: node.failures())
    assert not node.ups()
    return str(node.failures()[0].error)


@pytest.mark.asyncio
async def test_a_program_that_says_nothing_costs_the_dial_its_time_limit(lab: Lab) -> None:
    node = await lab.start(timing=IMPATIENT)
    with listener() as server:
        error = await failure(node, Multiaddr("127.0.0.1", server.getsockname()[1]))
    assert "No answer within 0.4 s" in error
    assert "firewall" in error


@pytest.mark.asyncio
@pytest.mark.parametrize(
    "words", [b"HTTP/1.1 400 Bad Request\r\n\r\n", b"SSH-2.0-OpenSSH_9.2\r\n", b"\x00\x05hello", b""]
)
async def test_a_program_that_speaks_another_language_is_recognised(lab: Lab, words: bytes) -> None:
    node = await lab.start(timing=IMPATIENT)
    with listener() as server:
        answering = threading.Thread(target=_answer_once, args=(server, words))
        answering.start()
        error = await failure(node, Multiaddr("127.0.0.1", server.getsockname()[1]))
        answering.join()
    assert "protocol" in error


def _answer_once(server: socket.socket, words: bytes) -> None:
    visit, _ = server.accept()
    with visit:
        visit.recv(4096)
        visit.sendall(words)


@pytest.mark.asyncio
async def test_a_zeromq_program_that_is_not_ours_is_recognised(lab: Lab) -> None:
    node = await lab.start(timing=IMPATIENT)
    with zmq.Context() as context, context.socket(zmq.ROUTER) as router:
        router.linger = 0
        port = router.bind_to_random_port("tcp://127.0.0.1")
        error = await failure(node, Multiaddr("127.0.0.1", port))
    assert "protocol" in error


@pytest.mark.asyncio
async def test_a_door_of_another_version_is_named_with_both_versions(lab: Lab) -> None:
    node = await lab.start()
    with listener() as server:
        answer = wire.enclose(wire.MAGIC + b"\x07and more")
        answering = threading.Thread(target=_answer_once, args=(server, answer))
        answering.start()
        error = await failure(node, Multiaddr("127.0.0.1", server.getsockname()[1]))
        answering.join()
    assert "version 7" in error
    assert f"version {wire.PROTOCOL_VERSION}" in error


@pytest.mark.asyncio
async def test_a_strange_program_on_the_port_of_a_dead_peer_gets_nothing(lab: Lab) -> None:
    node, peer = await lab.start(timing=IMPATIENT), await lab.start()
    await link(node, peer)
    address = peer.transport.address
    await peer.transport.close()
    await until(lambda: node.downs())
    with socket.create_server((address.host, address.port)) as server:
        server.settimeout(0.5)
        with pytest.raises(PeerUnreachable):
            node.transport.send(peer.peer, b"for the peer only")
        with pytest.raises(TimeoutError):
            server.accept()  # nobody reconnects on its own
        node.transport.dial(address)
        visit, _ = server.accept()
        with visit:
            said = visit.recv(65536)
    assert b"for the peer only" not in said
    await until(lambda: node.failures())


# Death, sleep and silence


@pytest.mark.asyncio
@pytest.mark.parametrize("child_dials", [False, True])
async def test_a_killed_peer_is_noticed_within_half_a_second(lab: Lab, child_dials: bool) -> None:
    node = await lab.start()
    async with Child(lab, dial=str(node.transport.address) if child_dials else "") as child:
        if not child_dials:
            node.transport.dial(child.address)
        await until(lambda: node.ups())
        killed_s = time.monotonic()
        child.signal(signal.SIGKILL)
        await until(lambda: node.downs(), within_s=0.5)
        assert time.monotonic() - killed_s < 0.5


@pytest.mark.asyncio
@pytest.mark.parametrize("child_dials", [False, True])
async def test_a_stopped_peer_is_noticed_within_two_seconds_and_may_come_back(lab: Lab, child_dials: bool) -> None:
    node = await lab.start()
    async with Child(lab, dial=str(node.transport.address) if child_dials else "") as child:
        if not child_dials:
            node.transport.dial(child.address)
        await until(lambda: node.ups())
        child.signal(signal.SIGSTOP)
        await until(lambda: node.downs(), within_s=2.0)
        assert "not heard" in node.downs()[0].reason
        child.signal(signal.SIGCONT)
        await until(lambda: child.heard("down"))
        node.transport.dial(child.address)
        await until(lambda: len(node.ups()) == 2)


@pytest.mark.asyncio
async def test_a_node_that_was_paused_itself_blames_nobody(lab: Lab) -> None:
    node = await lab.start(timing=LinkTiming(timeout_s=8.0))
    async with Child(lab, ping_s=0.2, timeout_s=0.6) as child:
        node.transport.dial(child.address)
        await until(lambda: node.ups())
        child.signal(signal.SIGSTOP)
        await asyncio.sleep(1.5)
        child.signal(signal.SIGCONT)
        answers = len(node.frames(Lane.CONTROL))
        node.transport.send(node.ups()[0].peer, b"still friends?")
        await until(lambda: len(node.frames(Lane.CONTROL)) > answers)
        await asyncio.sleep(0.3)
        assert not node.downs()
        assert not child.heard("down")


@pytest.mark.asyncio
async def test_a_peer_whose_loop_is_stuck_keeps_its_link_until_too_much_waits_for_it(lab: Lab) -> None:
    node = await lab.start()
    async with Child(lab) as child:
        node.transport.dial(child.address)
        await until(lambda: node.ups())
        peer = node.ups()[0].peer
        node.transport.send(peer, STALL)
        await asyncio.sleep(2.0)
        assert not node.downs(), "its IO thread answers pings, so it is alive"
        frame = bytes(256 << 10)
        for _ in range(MAX_BACKLOG_BYTES // len(frame) - 1):
            node.transport.send(peer, frame)
            await asyncio.sleep(0)
        node.transport.send(peer, frame)  # with what each frame costs besides its bytes, this one is too much
        with pytest.raises(PeerUnreachable):
            node.transport.send(peer, frame)
        await until(lambda: node.downs())
        assert "does not read" in node.downs()[0].reason


@pytest.mark.asyncio
async def test_an_idle_link_stays_up_and_knows_its_round_trip_time(lab: Lab) -> None:
    timing = LinkTiming(ping_s=0.05, timeout_s=0.3, tick_s=0.02)
    one, other = await lab.linked_pair(timing=timing)
    assert isinstance(one.transport, ZmqTransport)
    await asyncio.sleep(1.0)
    assert not one.downs() + other.downs()
    rtt_s = one.transport.rtt_s(other.peer)
    assert rtt_s is not None
    assert 0 < rtt_s < 0.1


@pytest.mark.asyncio
async def test_an_expiring_certificate_ends_the_link(lab: Lab) -> None:
    brief = enrol(lab.root, wall_s=time.time(), lifetime_s=3)  # within which a busy machine must have made the link
    one, other = await lab.start(), await lab.start(brief)
    await link(one, other)
    await until(lambda: one.downs())
    assert "expired" in one.downs()[0].reason


# Behind NAT


@pytest.mark.asyncio
async def test_a_node_that_nobody_can_dial_is_served_over_the_link_it_opened(lab: Lab) -> None:
    hidden, public = await lab.start(dialable=False), await lab.start()
    await link(hidden, public)
    assert public.ups()[0].address is None
    public.transport.send(hidden.peer, b"control")
    public.transport.publish(b"gossip")
    await public.transport.send_bulk(hidden.peer, b"bulk")
    await until(lambda: all(hidden.frames(lane) for lane in Lane))
    assert [hidden.frames(lane) for lane in Lane] == [[b"control"], [b"gossip"], [b"bulk"]]


@pytest.mark.asyncio
async def test_gossip_moves_to_its_own_sockets_when_both_can_be_dialled(lab: Lab) -> None:
    one, other = await lab.linked_pair()
    assert isinstance(one.transport, ZmqTransport)
    assert isinstance(other.transport, ZmqTransport)
    stats: list[Callable[[], bool]] = [
        lambda: one.transport.stats()[other.peer].gossip_direct,
        lambda: other.transport.stats()[one.peer].gossip_direct,
    ]
    await until(lambda: all(direct() for direct in stats), within_s=1.0)
    for number in range(100):
        one.transport.publish(bytes([number]))
    await until(lambda: len(other.frames(Lane.GOSSIP)) == 100)
    assert one.transport.stats()[other.peer].lanes[Lane.GOSSIP].frames_out == 100
    assert other.transport.stats()[one.peer].lanes[Lane.GOSSIP].bytes_in == 100


# Ports, threads, load


@pytest.mark.asyncio
async def test_a_taken_port_is_one_clear_line(lab: Lab) -> None:
    with listener() as server:
        port = server.getsockname()[1]
        with pytest.raises(PortInUse, match=f"Port {port} on 127.0.0.1 is taken") as caught:
            await lab.transport(enrol(lab.root), port=port).start(lambda events: None)
        assert "--port" in caught.value.hint
        other = await lab.start(default_port=port)
        assert other.transport.address.port != port


@pytest.mark.asyncio
async def test_a_free_port_is_taken_as_asked(lab: Lab) -> None:
    with listener() as server:
        port = server.getsockname()[1]
    node = await lab.start(port=port)
    assert node.transport.address == Multiaddr("127.0.0.1", port, node.peer)
    again = await lab.start(default_port=port)
    assert again.transport.address.port != port


@pytest.mark.asyncio
async def test_a_foreign_host_is_one_clear_line(lab: Lab) -> None:
    with pytest.raises(TransportError, match=r"192\.0\.2\.77 is not an address of this machine"):
        await lab.transport(enrol(lab.root), host="192.0.2.77").start(lambda events: None)


@pytest.mark.asyncio
async def test_a_name_that_does_not_resolve_fails_the_dial(lab: Lab) -> None:
    node = await lab.start()
    assert "does not resolve" in await failure(node, Multiaddr("no-such-host.invalid", 4600))


@pytest.mark.asyncio
async def test_ipv6_works_as_ipv4_does(lab: Lab) -> None:
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        pytest.skip("this machine has no IPv6 loopback")
    one, other = await lab.linked_pair(host="::1")
    one.transport.send(other.peer, b"six")
    other.transport.publish(b"six")
    await other.transport.send_bulk(one.peer, b"six")
    await until(lambda: other.frames(Lane.CONTROL) and one.frames(Lane.GOSSIP) and one.frames(Lane.BULK))


@pytest.mark.asyncio
async def test_a_bug_that_ends_the_io_thread_is_reported_and_ends_the_links(lab: Lab) -> None:
    reported: list[str] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: reported.append(str(context["exception"])))
    one, other = await lab.linked_pair()
    lab.ends.remove(one)
    one.transport.send(other.peer, "text instead of bytes")  # type: ignore[arg-type]
    await until(lambda: reported and one.downs() and other.downs())
    assert "str" in reported[0]
    with pytest.raises(TransportError, match="not running"):
        one.transport.dial(other.transport.address)
    await one.transport.close()


@pytest.mark.asyncio
async def test_names_are_resolved(lab: Lab) -> None:
    one, other = await lab.start(), await lab.start()
    one.transport.dial(Multiaddr("localhost", other.transport.address.port, other.peer))
    await until(lambda: one.ups())


def test_a_wildcard_host_is_told_to_peers_as_an_address_they_can_use() -> None:
    assert reachable_host("192.168.7.7") == "192.168.7.7"
    assert reachable_host("0.0.0.0") not in ("0.0.0.0", "")


@pytest.mark.asyncio
async def test_nothing_is_left_behind(lab: Lab) -> None:
    process = psutil.Process()
    await (await lab.start()).transport.close()  # whatever is made once per process
    threads, files = threading.active_count(), process.num_fds()
    for _ in range(5):
        ends = [await lab.start() for _ in range(3)]
        await link(ends[0], ends[1])
        await link(ends[0], ends[2])
        ends[1].transport.dial(Multiaddr("127.0.0.1", 9))
        for end in ends:
            await end.transport.close()
    await until(lambda: process.num_fds() <= files, what=f"{files} files before, {process.num_fds()} after")
    assert threading.active_count() == threads


def echo(end: End) -> None:
    """From now on `end` answers each control frame with itself, and releases each bulk frame."""

    def answer(events: Sequence[TransportEvent]) -> None:
        end.hear([event for event in events if not (isinstance(event, Received) and event.lane is Lane.BULK)])
        for event in events:
            if isinstance(event, Received) and event.lane is Lane.CONTROL:
                end.transport.send(event.peer, event.frame)
            elif isinstance(event, Received) and event.lane is Lane.BULK:
                end.transport.release_bulk(event.peer, len(event.frame))
                end.bulk_frames += 1

    end.listener = answer


async def median_round_trip_s(one: End, other: End, count: int) -> float:
    times = []
    for _ in range(count):
        have = len(one.frames(Lane.CONTROL))
        started_s = time.perf_counter()
        one.transport.send(other.peer, bytes(200))
        await until(lambda have=have: len(one.frames(Lane.CONTROL)) > have)  # type: ignore[misc]
        times.append(time.perf_counter() - started_s)
    return statistics.median(times)


@pytest.mark.asyncio
async def test_a_flood_of_bulk_does_not_delay_control(lab: Lab) -> None:
    one, other = await lab.linked_pair()
    echo(other)
    idle_s = await median_round_trip_s(one, other, 50)
    flood = asyncio.create_task(_flood(one, other))
    try:
        await until(lambda: other.bulk_frames > 16)
        flooded_s = await median_round_trip_s(one, other, 50)
    finally:
        flood.cancel()
        await asyncio.gather(flood, return_exceptions=True)
    # A window of bulk takes 8 to 20 ms here: were control to wait behind it, every round trip would take that and more.
    assert flooded_s < 10 * idle_s + 0.010
    assert not one.downs() + other.downs()


async def _flood(one: End, other: End) -> None:
    while True:
        await one.transport.send_bulk(other.peer, bytes(1 << 20))


def test_timing_is_checked() -> None:
    with pytest.raises(ValueError, match="tick_s"):
        LinkTiming(ping_s=2.0, timeout_s=1.0)


def test_repr_before_the_start_says_so() -> None:
    root = Identity.generate()
    member = enrol(root)
    transport = ZmqTransport(member.identity.public, member.curve, member.credential, MeshId(root.public))
    assert "not started" in repr(transport)
    assert format_peer(member.identity.public)[-8:] in repr(transport)
    with pytest.raises(TransportError, match="not started"):
        _ = transport.address
