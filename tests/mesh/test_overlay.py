"""The overlay alone: views under any series of events, and who may displace whom."""

from __future__ import annotations

from random import Random

from hypothesis import given, settings
from hypothesis import strategies as st

from atmo.ids import PeerId
from atmo.mesh.messages import Contact, Disconnect, ForwardJoin, Join, Neighbour, Shuffle, ShuffleReply
from atmo.mesh.overlay import Overlay, Part, Seek, Tell, ViewSizes, Want

OWN = PeerId(bytes(32))
SIZES = ViewSizes(everyone=0)


def peer(number: int) -> PeerId:
    return PeerId(number.to_bytes(32, "big"))


def contact(number: int) -> Contact:
    return Contact(peer(number), where(peer(number)))


def where(who: PeerId) -> tuple[str, ...]:
    return (f"/ip4/10.0.0.1/tcp/{int.from_bytes(who, 'big')}",)


def overlay(sizes: ViewSizes = SIZES) -> Overlay:
    return Overlay(OWN, sizes, Random(1), where)


def join(view: Overlay, number: int, now_s: float = 0.0) -> list[Want]:
    """A stranger dials this node and joins through it."""
    wants = view.link_up(peer(number), (), False, now_s)
    return wants + view.receive(peer(number), Join(where(peer(number))), now_s)


def test_a_newcomer_becomes_a_neighbour_and_the_others_hear_of_it() -> None:
    view = overlay()
    join(view, 1)

    wants = join(view, 2)

    assert list(view.active) == [peer(1), peer(2)]
    assert wants == [Tell(peer(1), ForwardJoin(contact(2), SIZES.arwl))]


def test_a_full_view_makes_room_for_a_newcomer() -> None:
    view = overlay()
    for number in range(1, SIZES.active + 1):
        join(view, number)

    wants = join(view, 99)

    assert peer(99) in view.active
    assert len(view.active) == SIZES.active
    (told,) = [want for want in wants if want in [Tell(peer(n), Disconnect()) for n in range(1, 7)]]
    assert isinstance(told, Tell)
    assert told.peer in view.passive


def test_a_full_view_refuses_who_has_other_neighbours() -> None:
    view = overlay()
    for number in range(1, SIZES.active + 1):
        join(view, number)
    view.link_up(peer(99), (), False, 0.0)

    assert view.receive(peer(99), Neighbour((), False), 0.0) == [Tell(peer(99), Disconnect())]
    assert peer(99) not in view.active


def test_no_number_of_strangers_displaces_the_two_links_of_ones_own_choice() -> None:
    view = overlay()
    for number in (1, 2):
        view.link_up(peer(number), where(peer(number)), True, 0.0)

    for number in range(100, 300):
        join(view, number, float(number))
        view.validate()

    assert view.protected == [peer(1), peer(2)]
    assert len(view.active) == SIZES.active


def test_a_hundred_strange_keys_with_all_they_may_say_do_not_surround_a_node() -> None:
    """They are linked, ask with priority, ask again when they were sent away, and hand out nobody but each other."""
    view = overlay()
    for number in (1, 2, 3):
        view.link_up(peer(number), where(peer(number)), True, 0.0)

    told: list[Want] = []
    for now_s in range(1, 20):
        for number in range(100, 200):
            who = peer(number)
            if who not in view.links.up:
                told += view.link_up(who, (), False, now_s)
            told += view.receive(who, Join(where(who)) if now_s % 2 else Neighbour(where(who), True), now_s)
            told += view.receive(who, Shuffle((who,), 0, tuple(contact(100 + at) for at in range(8))), now_s)
            told += view.receive(who, ForwardJoin(contact(100 + (number + 7) % 100), 0), now_s)
            view.validate()
        told += view.due(now_s)

    assert view.protected == [peer(1), peer(2)]
    sent_away = {want.peer for want in told if isinstance(want, Part) or want == Tell(peer(1), Disconnect())}
    assert not sent_away & {peer(1), peer(2)}
    assert Tell(peer(2), Disconnect()) not in told
    assert len(view.links.up) <= SIZES.extras + SIZES.active + 3


def test_a_surrounded_node_keeps_looking_for_two_neighbours_of_its_own_choice() -> None:
    view = overlay()
    for number in range(1, SIZES.active + 1):
        join(view, number)
    view.receive(peer(1), Shuffle((peer(1),), 0, (contact(50), contact(51))), 0.0)
    view.node_known(peer(1), 0.0)

    sought = {want.contact.peer for want in view.due(2.0) if isinstance(want, Seek)}

    assert sought == {peer(50), peer(51)}


def test_who_was_lost_is_dialled_now_and_then_and_asked_with_priority() -> None:
    view = overlay()
    join(view, 1)
    join(view, 2)
    view.link_down(peer(2), 1.0)
    assert Seek(contact(2)) not in [want for now_s in range(1, 14) for want in view.due(now_s)]

    sought_s = next(now_s for now_s in range(14, 60) if Seek(contact(2)) in view.due(now_s))

    asked = view.link_up(peer(2), (), True, sought_s + 0.1)
    assert asked[0] == Tell(peer(2), Neighbour(where(OWN), True))


def test_a_lost_peer_that_cannot_be_reached_is_tried_again_for_ever() -> None:
    view = overlay()
    join(view, 1)
    join(view, 2)
    view.link_down(peer(2), 1.0)

    tries = 0
    for now_s in range(2, 1000):
        for want in view.due(now_s):
            if want == Seek(contact(2)):
                tries += 1
                view.dial_failed(peer(2), now_s)

    assert 1000 / (2 * SIZES.heal_s) < tries < 1000 / (0.4 * SIZES.heal_s)


def test_who_was_hung_up_on_may_still_be_talking() -> None:
    view = overlay()
    join(view, 1)
    view.link_up(peer(2), where(peer(2)), True, 0.0)
    view.receive(peer(2), Disconnect(), 0.0)
    parted = [want for want in view.due(SIZES.linger_s + 1.0) if isinstance(want, Part)]
    assert [want.peer for want in parted] == [peer(2)]

    for late in (Join(()), Neighbour((), True), Disconnect(), Shuffle((peer(2),), 0, ()), ShuffleReply((), ())):
        assert view.receive(peer(2), late, SIZES.linger_s + 1.0) == []
    view.validate()


def test_a_link_for_a_request_is_kept_while_it_is_needed_and_then_for_a_while() -> None:
    view = overlay()
    join(view, 1)
    assert view.want(peer(9), 0.0) == [Seek(contact(9))]
    assert view.want(peer(9), 0.0) == [Seek(contact(9))]  # for a second request; the dial is one
    assert view.link_up(peer(9), (), True, 1.0) == []  # it is not asked to be a neighbour
    assert view.want(peer(9), 1.0) == []

    for _ in range(3):
        assert not parted(view, 100.0)
        view.unwant(peer(9), 100.0)

    assert not parted(view, 99.0 + SIZES.linger_s)
    assert parted(view, 101.0 + SIZES.linger_s) == [peer(9)]


def parted(view: Overlay, now_s: float) -> list[PeerId]:
    return [want.peer for want in view.due(now_s) if isinstance(want, Part)]


def test_the_end_of_a_walk_dials_the_newcomer_with_priority() -> None:
    view = overlay()
    join(view, 1)
    join(view, 2)

    assert view.receive(peer(1), ForwardJoin(contact(50), 0), 0.0) == [Seek(contact(50))]
    asked = view.link_up(peer(50), (), True, 0.1)
    assert asked[0] == Tell(peer(50), Neighbour(where(OWN), True))


def test_a_walk_goes_on_and_leaves_the_newcomer_in_one_passive_view() -> None:
    view = overlay()
    join(view, 1)
    join(view, 2)

    assert view.receive(peer(1), ForwardJoin(contact(50), SIZES.prwl), 0.0) == [
        Tell(peer(2), ForwardJoin(contact(50), SIZES.prwl - 1))
    ]
    assert view.passive == {peer(50): contact(50)}


def test_a_lost_neighbour_is_replaced_from_the_passive_view() -> None:
    view = overlay()
    join(view, 1)
    join(view, 2)
    view.receive(peer(1), ForwardJoin(contact(50), SIZES.prwl), 0.0)

    view.link_down(peer(1), 5.0)

    assert Seek(contact(50)) in view.due(5.0)


def test_an_answer_to_a_shuffle_goes_back_the_way_the_question_came() -> None:
    view = overlay()
    join(view, 1)
    asked = Shuffle((peer(70), peer(1)), 0, (contact(70),))

    assert view.receive(peer(1), asked, 0.0) == [Tell(peer(1), ShuffleReply((peer(70),), ()))]
    assert peer(70) in view.passive


def test_contacts_nobody_asked_for_are_not_kept() -> None:
    view = overlay()
    join(view, 1)

    view.receive(peer(1), ShuffleReply((), (contact(70),)), 0.0)

    assert view.passive == {}


def test_a_small_mesh_is_not_thinned_out() -> None:
    view = overlay(ViewSizes())
    for number in range(1, 20):
        view.node_known(peer(number), 0.0)
        assert view.link_up(peer(number), (), False, 0.0) == []

    assert len(view.active) == 19
    assert view.next_due() is None


events = st.tuples(st.integers(0, 9), st.integers(1, 40), st.integers(0, 8), st.booleans())


@settings(max_examples=150, deadline=None)
@given(st.lists(events, max_size=120), st.sampled_from([0, 4, 24]), st.integers(0, 5))
def test_the_views_keep_their_invariants_whatever_happens(
    story: list[tuple[int, int, int, bool]], everyone: int, seed: int
) -> None:
    view = Overlay(OWN, ViewSizes(everyone=everyone), Random(seed), where)
    linked: dict[PeerId, None] = {}
    now_s = 0.0

    def obey(wants: list[Want]) -> None:
        for want in wants:
            if isinstance(want, Tell):
                assert want.peer in linked, "something is said to a stranger"
            elif isinstance(want, Part):
                del linked[want.peer]
                view.link_down(want.peer, now_s)

    for what, number, hops, flag in story:
        now_s += hops
        who = peer(number)
        if what == 0 and who not in linked:
            linked[who] = None
            obey(view.link_up(who, where(who), flag, now_s))
        elif what == 1 and who in linked:
            del linked[who]
            view.link_down(who, now_s)
        elif what == 2 and who in linked:
            obey(view.receive(who, Join(where(who)), now_s))
        elif what == 3 and who in linked:
            obey(view.receive(who, ForwardJoin(contact(number + hops), hops), now_s))
        elif what == 4 and who in linked:
            obey(view.receive(who, Neighbour(where(who), flag), now_s))
        elif what == 5 and who in linked:
            obey(view.receive(who, Disconnect(), now_s))
        elif what == 6 and who in linked:
            obey(view.receive(who, Shuffle((who,), hops, (contact(number), contact(hops))), now_s))
        elif what == 7:
            (view.node_known if flag else view.node_gone)(who, now_s)
        elif what == 8:
            obey(view.want(who, now_s)) if flag else view.unwant(who, now_s)
        elif what == 9:
            view.dial_failed(who, now_s) if flag else view.not_dialled(who, now_s)
        at_s = view.next_due()
        if at_s is not None and at_s <= now_s:
            obey(view.due(now_s))
        view.validate()
