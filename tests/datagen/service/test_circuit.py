import pytest

from datagen.service.circuit import FAULTS_IN_A_ROW, FIRST_PROBE_S, Circuit
from datagen.service.limits import Allowance, Limits

DAY_S = 86400.0
ROOM = {"requests": Allowance(100, 50, 1.0), "tokens": Allowance(100, 50, 1.0)}
NONE_LEFT = {"requests": Allowance(100, 0, 7.0)}


class Scene:
    """A circuit with a clock that is set by hand."""

    def __init__(self, **changes: float) -> None:
        self.now = 1000.0
        settings = {"patience_s": 600.0, "first_wait_s": 1.0, "max_tries": 3} | changes
        self.circuit = Circuit(clock=lambda: self.now, **settings)  # type: ignore[arg-type]

    def send(self, *numbers: int) -> None:
        for number in numbers:
            self.circuit.sent(number)

    def refuse(self, number: int, wait_s: float | None = None, **figures: Allowance) -> bool:
        return self.circuit.refused(number, Limits(wait_s, **figures), 10, "too many")

    @property
    def open_in(self) -> float:
        return max(0.0, self.circuit.open_at() - self.now)


def test_an_allowance_used_up_pauses_the_service_for_the_time_given() -> None:
    scene = Scene()
    scene.send(0, 1)
    assert scene.refuse(0, 30, **NONE_LEFT)
    assert scene.open_in == 30
    scene.circuit.answered(1)
    assert scene.open_in == 30, "an answer to an earlier try does not end it"
    scene.now += 30
    assert scene.open_in == 0


def test_without_retry_after_the_reset_of_what_is_used_up_counts() -> None:
    scene = Scene()
    scene.send(0)
    assert scene.refuse(0, **NONE_LEFT)
    assert scene.open_in == 7


def test_a_pause_beyond_the_patience_ends_the_run_at_once() -> None:
    scene = Scene()
    scene.send(0)
    scene.refuse(0, DAY_S, **NONE_LEFT)
    assert "wait 1 d 0 h (until 2" in scene.circuit.ended
    assert "longer than the patience of 10 min 0 s" in scene.circuit.ended


def test_a_refusal_with_room_left_concerns_the_request_alone() -> None:
    scene = Scene()
    scene.send(*range(20))
    assert not scene.refuse(3, DAY_S, **ROOM)
    assert scene.open_in == 0
    assert not scene.circuit.ended


def test_a_row_of_refusals_concerns_the_service_even_with_room_left() -> None:
    scene = Scene()
    scene.send(*range(7))
    assert [scene.refuse(number, 5, **ROOM) for number in range(6)] == [False] * 5 + [True]
    assert scene.open_in == 5


def test_awaited_answers_count_against_a_row_of_refusals() -> None:
    scene = Scene()
    scene.send(*range(60))
    assert not any(scene.refuse(number, 5, **ROOM) for number in range(0, 60, 6))


def test_without_figures_one_refusal_holds_the_service_and_a_later_answer_frees_it() -> None:
    scene = Scene()
    scene.send(0, 1, 2)
    assert scene.refuse(1, 4)
    assert scene.open_in == 4
    scene.circuit.answered(0)
    assert scene.open_in == 4, "it was sent before the refused one"
    scene.circuit.answered(2)
    assert scene.open_in == 0
    scene.send(3, 4)
    assert not scene.refuse(3, 4), "single refusals are known to concern single requests now"


def test_a_hold_without_figures_ends_after_the_time_asked_for() -> None:
    scene = Scene()
    scene.send(0)
    scene.refuse(0, 4)
    scene.now += 4
    assert scene.open_in == 0
    scene.send(1, 2)
    assert scene.open_in == 0, "all may go, not a probe alone"


def test_a_long_hold_is_probed_by_others_at_growing_distances_and_ends_the_run() -> None:
    scene = Scene()
    scene.send(0)
    scene.refuse(0, DAY_S)
    waits = []
    for number in range(1, 10):
        if scene.circuit.ended:
            break
        waits.append(scene.open_in)
        scene.now += scene.open_in
        scene.send(number)
        assert scene.open_in == float("inf"), "one probe at a time"
        scene.refuse(number, DAY_S)
    assert waits == [FIRST_PROBE_S * 2**step for step in range(5)]
    assert "refused every request" in scene.circuit.ended


def test_an_answered_probe_frees_the_service() -> None:
    scene = Scene()
    scene.send(0)
    scene.refuse(0, DAY_S)
    scene.now += FIRST_PROBE_S
    scene.send(1)
    scene.circuit.answered(1)
    assert scene.open_in == 0


def test_a_probe_that_was_given_up_makes_room_for_another() -> None:
    scene = Scene()
    scene.send(0)
    scene.refuse(0, DAY_S)
    scene.now += FIRST_PROBE_S
    scene.send(1)
    scene.circuit.withdrawn(1)
    assert scene.open_in == 0


def test_refusals_without_a_time_back_off_and_end_with_the_patience() -> None:
    scene = Scene(patience_s=100.0)
    scene.send(0)
    number = 0
    while not scene.circuit.ended:
        assert scene.refuse(number)
        assert scene.open_in <= 60
        scene.now += scene.open_in + 0.5
        number += 1
        assert number < 500
        if not scene.circuit.ended:
            scene.send(number)
    assert scene.now - 1000 < 100 + 2 * 61


def fail_many(scene: Scene, count: int, requests: int, **changes: bool) -> list[bool]:
    scene.send(*range(count))
    return [
        scene.circuit.failed(number, f"r{number % requests}", unreachable=changes.get("unreachable", False))
        for number in range(count)
    ]


def test_a_run_of_faults_opens_the_circuit_and_an_answer_closes_it() -> None:
    scene = Scene()
    blamed = fail_many(scene, FAULTS_IN_A_ROW, 7)
    assert blamed == [False] * (FAULTS_IN_A_ROW - 1) + [True]
    assert scene.open_in > 0
    scene.now += scene.open_in
    scene.send(50)
    assert scene.open_in == float("inf")
    scene.circuit.answered(50)
    assert scene.open_in == 0


def test_few_requests_that_fail_do_not_open_the_circuit() -> None:
    assert not any(fail_many(Scene(), 40, 4))


def test_slow_answers_that_are_awaited_keep_the_circuit_closed() -> None:
    scene = Scene()
    scene.send(*range(100))
    assert not any(
        scene.circuit.failed(number, str(number), unreachable=False) for number in range(0, 100, 2)
    )


@pytest.mark.parametrize(("answered", "probes"), [(False, 3), (True, 9)])
def test_failed_probes_end_the_run(answered: bool, probes: int) -> None:
    scene = Scene()
    if answered:
        scene.send(0)
        scene.circuit.answered(0)
    fail_many(scene, FAULTS_IN_A_ROW, 7)
    sent = 0
    while not scene.circuit.ended:
        scene.now += scene.open_in
        scene.send(100 + sent)
        scene.circuit.failed(100 + sent, "x", unreachable=False)
        sent += 1
    assert sent == probes
    assert "in a row failed" in scene.circuit.ended


def test_a_service_that_was_never_there_ends_the_run_without_probes() -> None:
    scene = Scene()
    assert all(fail_many(scene, 3, 1, unreachable=True))
    assert scene.circuit.ended == "the service cannot be reached"
