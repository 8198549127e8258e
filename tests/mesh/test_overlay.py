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
