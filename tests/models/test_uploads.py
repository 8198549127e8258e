"""Who is sent which chunk: each in turns, each chunk once while others can pass it on, no faster than allowed."""

from __future__ import annotations

from atmo.ids import PeerId
from atmo.models.uploads import ELSEWHERE_S, MAX_PEERS, MAX_QUEUED, MOST_WAY_S, Bucket, Uploads

ROOT = bytes(32)


def peer(number: int) -> PeerId:
    return PeerId(number.to_bytes(32, "big"))


def test_a_peer_gets_what_it_asked_for_in_its_order() -> None:
    uploads = Uploads()
    uploads.ask(peer(1), ROOT, (5, 3, 9), 0.0)
    assert [uploads.next(peer(1), 0.0) for _ in range(4)] == [(ROOT, 5), (ROOT, 3), (ROOT, 9), None]


def test_what_was_sent_to_one_that_shares_is_asked_of_it_once() -> None:
    uploads = Uploads()
    uploads.shares(peer(1), ROOT)
    uploads.ask(peer(1), ROOT, (5,), 0.0)
    uploads.next(peer(1), 0.0)

    first = uploads.ask(peer(2), ROOT, (5, 6), 0.1)
    second = uploads.ask(peer(2), ROOT, (5,), 0.2)

    assert first.elsewhere == ((peer(1), (5,)),)
    assert (first.queued, second.queued) == (1, 1)


def test_what_waits_for_a_slow_line_is_not_given_to_a_second_one_meanwhile() -> None:
    uploads = Uploads()
    uploads.shares(peer(1), ROOT)
    uploads.ask(peer(1), ROOT, (5,), 0.0)

    for now_s in (1.0, ELSEWHERE_S + 1.0, 2 * ELSEWHERE_S + 1.0):
        assert uploads.ask(peer(2), ROOT, (5,), now_s).elsewhere == ((peer(1), (5,)),)

    sent_s = 3 * ELSEWHERE_S
    uploads.next(peer(1), sent_s)
    assert uploads.ask(peer(2), ROOT, (5,), sent_s + 0.5 * ELSEWHERE_S).elsewhere == ((peer(1), (5,)),)
    assert uploads.ask(peer(2), ROOT, (5,), sent_s + 0.6 * ELSEWHERE_S).queued == 1


def test_what_is_on_its_way_over_a_slow_line_is_not_given_to_a_second_one_until_it_is_there() -> None:
    on_way = {peer(1): 2}
    uploads = Uploads(lambda who: on_way.get(who, 0))
    uploads.shares(peer(1), ROOT)
    uploads.ask(peer(1), ROOT, (5, 6), 0.0)
    uploads.next(peer(1), 0.0)
    uploads.next(peer(1), 0.0)

    for now_s in (1.0, ELSEWHERE_S + 1.0, 2 * ELSEWHERE_S + 1.0):
        assert uploads.ask(peer(2), ROOT, (5,), now_s).elsewhere == ((peer(1), (5,)),)
    on_way[peer(1)] = 1
    assert uploads.ask(peer(2), ROOT, (6,), 3 * ELSEWHERE_S).elsewhere == ((peer(1), (6,)),), "this one still is"
    assert uploads.ask(peer(2), ROOT, (5,), 3 * ELSEWHERE_S).queued == 1, "it is there, and was told of long ago"
    assert uploads.ask(peer(3), ROOT, (6,), MOST_WAY_S + 1.0).queued == 1, "nobody waits for ever"


def test_nobody_is_sent_to_one_that_only_takes_is_gone_or_had_it_long_ago() -> None:
    for happens in ("takes", "gone", "long ago"):
        uploads = Uploads()
        if happens != "takes":
            uploads.shares(peer(1), ROOT)
        uploads.ask(peer(1), ROOT, (5,), 0.0)
        uploads.next(peer(1), 0.0)
        if happens == "gone":
            uploads.lost(peer(1))
        later_s = 2 * ELSEWHERE_S if happens == "long ago" else 0.1
        assert uploads.ask(peer(2), ROOT, (5,), later_s).queued == 1, happens


def test_eight_that_ask_for_everything_take_each_chunk_from_the_origin_once() -> None:
    uploads = Uploads()
    sent: list[int] = []
    for number in range(8):
        uploads.shares(peer(number), ROOT)
    for chunk in range(64):
        for number in range(8):
            uploads.ask(peer((number + chunk) % 8), ROOT, (chunk,), chunk * 0.001)
    for number in range(8):
        while (wanted := uploads.next(peer(number), 1.0)) is not None:
            sent.append(wanted[1])
    assert sorted(sent) == list(range(64))


def test_what_is_not_needed_any_more_is_not_sent_and_was_not_given() -> None:
    uploads = Uploads()
    uploads.shares(peer(1), ROOT)
    uploads.ask(peer(1), ROOT, (5, 6), 0.0)
    uploads.drop(peer(1), ROOT, (5,))
    assert uploads.next(peer(1), 0.1) == (ROOT, 6)
    assert uploads.ask(peer(2), ROOT, (5,), 0.1).queued == 1


def test_queues_and_peers_are_bounded() -> None:
    uploads = Uploads()
    answer = uploads.ask(peer(1), ROOT, range(MAX_QUEUED + 3), 0.0)
    assert (answer.queued, answer.refused) == (MAX_QUEUED, (MAX_QUEUED, MAX_QUEUED + 1, MAX_QUEUED + 2))
    for number in range(2, MAX_PEERS + 1):
        uploads.ask(peer(number), ROOT, (0,), 0.0)
    assert uploads.ask(peer(999), ROOT, (0,), 0.0).refused == (0,)


def test_a_rate_limit_lets_through_what_it_says_in_the_long_run() -> None:
    bucket, now_s = Bucket(10.0, 0.0), 0.0
    for _ in range(100):
        now_s += bucket.take(1, now_s)
    assert 9.5 <= now_s <= 10.1
    assert Bucket(0.0, 0.0).take(1 << 40, 0.0) == 0.0
