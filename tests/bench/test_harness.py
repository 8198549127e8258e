"""The benchmark harness: samples become percentiles, targets become verdicts, a result keeps its form."""

from __future__ import annotations

import importlib
import json
import random
import subprocess
import sys
from pathlib import Path

import msgspec
import numpy as np
import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st

from atmo.errors import UsageError
from bench import __main__ as command
from bench import gossip, harness, processes, report, stats, texts
from bench import routing as routing_scenario
from bench.harness import Context, Outcome, Pair, Scenario, Series, Target


class Dice:
    """A scenario that measures nothing but chance."""

    def run(self, context: Context) -> list[Outcome]:
        slow = Series("slow", "ms", (context.rng.random(200) + 3).tolist())
        fast = Series("fast", "ms", context.rng.random(200).tolist(), "a note")
        return [Pair("slow against fast", slow, fast), Series("few", "s", [1.0, 2.0])]


def scenario(*targets: Target) -> Scenario:
    return Scenario("Dice", seed=1, limit_s=10, full={"throws": 200}, quick={"throws": 2}, target=targets)


def target(measure: str, statistic: harness.Statistic, below: float, unit: str = "ms") -> Target:
    return Target(measure, statistic, below, unit, f"{measure} is below {below}")


def result_of(folder: Path, *targets: Target, quick: bool = False) -> harness.Result:
    return harness.measure("dice", scenario(*targets), folder, quick=quick, runner=Dice(), watch_s=0.0)


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=50), st.sampled_from([0.01, 0.5, 0.95, 0.99, 1.0]))
def test_a_percentile_is_the_least_value_that_this_share_does_not_exceed(values: list[float], share: float) -> None:
    found = stats.percentile(values, share)

    assert found in values
    assert sum(value <= found for value in values) >= share * len(values) - 1e-9
    assert sum(value < found for value in values) < share * len(values)


def test_a_percentile_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="of 0 values"):
        stats.percentile([], 0.5)
    with pytest.raises(ValueError, match="0 samples"):
        stats.summarise([], np.random.default_rng(1))


def test_intervals_hold_the_true_value_as_often_as_they_say() -> None:
    """The median of a lognormal is 1; of 300 intervals of 95% about 15 miss it."""
    rng = np.random.default_rng(5)
    intervals = [stats.estimate(rng.lognormal(0, 1, 100), 0.5, rng) for _ in range(300)]

    held = sum(found.low <= 1.0 <= found.high for found in intervals)

    assert 0.90 <= held / 300 <= 0.99


def test_the_short_way_to_an_interval_is_the_bootstrap() -> None:
    """One beta number instead of n draws: the same interval as resampling in full."""
    rng = np.random.default_rng(6)
    values = np.sort(rng.lognormal(0, 1, 400))

    quick = stats.estimate(values, 0.95, rng)
    resampled = np.sort(rng.choice(values, (4000, 400)), axis=1)[:, stats.rank(400, 0.95)]

    assert quick.low == pytest.approx(np.percentile(resampled, 2.5), rel=0.05)
    assert quick.high == pytest.approx(np.percentile(resampled, 97.5), rel=0.05)


def test_percentiles_that_the_samples_cannot_tell_are_left_out() -> None:
    rng = np.random.default_rng(7)

    assert stats.summarise(range(19), rng).p95 is None
    assert stats.summarise(range(20), rng).p95 is not None
    assert stats.summarise(range(99), rng).p99 is None
    assert stats.summarise(range(100), rng).p99 is not None


def test_a_difference_of_pairs_is_found_under_noise_that_both_share() -> None:
    rng = np.random.default_rng(8)
    weather = rng.normal(100, 30, 300)

    difference = stats.median_difference(weather + 5 + rng.normal(0, 0.1, 300), weather, rng)

    assert difference.low <= difference.value <= difference.high
    assert difference.value == pytest.approx(5, abs=0.5)
    assert difference.high - difference.low < 5  # the shared noise alone would make it about 9 wide


def test_targets_become_verdicts(tmp_path: Path) -> None:
    met, missed = target("fast", "p99", 1.5), target("slow", "p50", 1.5)
    between = target("slow against fast", "difference", 4.0)

    result = result_of(tmp_path, met, missed, between)

    assert [verdict.met for verdict in result.verdicts] == [True, False, True]
    assert not result.met
    assert result_of(tmp_path, met).met


def test_a_target_without_enough_samples_is_not_met(tmp_path: Path) -> None:
    result = result_of(tmp_path, target("few", "p99", 100.0, "s"))

    assert result.verdicts[0].estimate is None
    assert not result.met


def test_a_target_for_what_was_not_measured_is_a_mistake(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="was not measured"):
        result_of(tmp_path, target("fats", "p99", 1.0))
    with pytest.raises(ValueError, match="in s was not measured"):
        result_of(tmp_path, target("fast", "p99", 1.0, "s"))


def test_equal_seeds_give_equal_results(tmp_path: Path) -> None:
    first, second = result_of(tmp_path), result_of(tmp_path)

    assert first.measures == second.measures
    assert first.comparisons == second.comparisons


def test_a_stored_result_reads_back_the_same_and_names_no_machine(tmp_path: Path) -> None:
    result = result_of(tmp_path, target("fast", "p99", 1.5))

    file = harness.write(result, tmp_path)

    assert harness.read(file) == result
    text = file.read_text()
    assert str(Path.home()) not in text
    assert str(tmp_path) not in text


def test_a_result_with_another_program_beside_it_does_not_replace_the_one_without(tmp_path: Path) -> None:
    result = msgspec.structs.replace(harness.read(harness.RESULTS / "gateway.json"), wall_s=1.0)

    alone, together = harness.write(result, tmp_path), harness.write(result, tmp_path, beside="litellm")

    assert (alone.name, together.name) == ("gateway.json", "gateway_litellm.json")


def test_a_file_that_is_no_result_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "dice.json"
    file.write_text('{"schema": 1, "surprise": true}')

    with pytest.raises(UsageError, match="is not a result"):
        harness.read(file)


def test_the_committed_results_have_the_schema_and_belong_to_a_scenario() -> None:
    for file in harness.RESULTS.glob("*.json"):
        result = harness.read(file)
        assert file.stem in (result.scenario, f"{result.scenario}_litellm")
        assert result.scenario in harness.names()
        assert not result.quick, f"{file.name} is of a quick run"


@pytest.mark.parametrize("name", harness.names())
def test_every_scenario_file_fits_its_module(name: str) -> None:
    found = harness.load(name)

    assert found.target, "a scenario without a target"
    for sizes in (found.full, found.quick):
        msgspec.convert(sizes, importlib.import_module(f"bench.{name}").Sizes)


def test_an_unknown_scenario_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(["rooting"]) == 2
    assert capsys.readouterr().err == f"There is no scenario 'rooting'. There are: {', '.join(harness.names())}.\n"


def test_the_summary_names_what_was_missed(tmp_path: Path) -> None:
    result = result_of(tmp_path, target("fast", "p99", 1.5), target("slow", "p50", 1.5))

    text = report.summary([result], ["hop"]).plain

    assert text == "1 of 2 targets met. MISSED: slow is below 1.5. FAILED TO RUN: hop."


def test_a_seed_gives_the_same_texts_and_another_seed_others() -> None:
    def offers(seed: int) -> list[texts.Offer]:
        return texts.offers(50, random.Random(seed))

    assert offers(1) == offers(1)
    assert offers(1) != offers(2)
    assert len({offer.name for offer in offers(1)}) == 50


def test_a_text_has_the_length_that_was_asked_for() -> None:
    def count(text: str) -> int:
        return 2 + sum(1 + (len(word) > 5) for word in text.split())

    for tokens in (9, 16, 108):
        assert count(texts.of_length(tokens, count, random.Random(1))) == tokens


def test_a_table_has_the_rows_asked_for_and_every_class() -> None:
    from atmo.mesh.capability import Capability, Descriptor

    made = [
        Capability(Descriptor(id=f"atmo:chat:{number}", type="chat", description="x"), "none", (bytes(384),))
        for number in range(40)
    ]
    mesh = routing_scenario.make_mesh(made, 400, 8, np.random.default_rng(1))

    assert len(mesh.table) == 400
    assert len(mesh.table.classes) == 40
    mesh.table.validate()


def test_what_a_scenario_left_behind_is_found_and_ended(tmp_path: Path) -> None:
    world = processes.World(tmp_path)
    idle = subprocess.Popen(
        [sys.executable, "-c", "import time; print(flush=True); time.sleep(60)"],
        env=world.environment,
        stdout=subprocess.PIPE,
        start_new_session=True,
    )
    with idle:
        assert idle.stdout is not None
        idle.stdout.readline()
        assert [process.pid for process in processes.of_world(tmp_path)] == [idle.pid]

        assert processes.end_all(tmp_path) == 1
    assert not psutil.pid_exists(idle.pid)


def test_two_node_processes_tell_each_other_a_row(tmp_path: Path) -> None:
    settings = {"nodes": 2, "publications": 2, "warm_up": 0, "pause_s": 0.01}

    everyone, each = gossip.run(Context(3, settings, tmp_path))

    assert isinstance(everyone, Series)
    assert isinstance(each, Series)
    assert len(everyone.samples) == len(each.samples) == 2
    assert all(0 < taken_ms < 20_000 for taken_ms in everyone.samples)
    assert not processes.of_world(tmp_path)


def test_results_print_as_json(tmp_path: Path) -> None:
    raw = msgspec.json.encode(result_of(tmp_path, target("fast", "p99", 1.5)))

    assert set(json.loads(raw)) == set(harness.Result.__struct_fields__)
