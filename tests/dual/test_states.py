"""States, their steps, and which keys are read from the new cache."""

from __future__ import annotations

import pytest

from rdbkit.dual.states import BEGINNING, Setting, State, check_step, in_force, mirrored, primary, reads_new

STEPS = {"old": ["shadow"], "shadow": ["old", "dial"], "dial": ["shadow", "new"], "new": ["dial", "done"], "done": ["new"]}


@pytest.mark.parametrize("now", State)
def test_one_goes_one_step_at_a_time_forward_and_back(now: State) -> None:
    for wanted in State:
        if wanted in STEPS[now]:
            check_step(Setting(now), wanted)
        else:
            with pytest.raises(ValueError, match=r"already|the next step is"):
                check_step(Setting(now), wanted)


def test_in_dial_the_percentage_may_change_to_any_other() -> None:
    for percent in (0, 0.5, 99, 100):
        check_step(Setting(State.DIAL, 10), State.DIAL, percent)
    with pytest.raises(ValueError, match="the state is dial 10 % already"):
        check_step(Setting(State.DIAL, 10), State.DIAL, 10)
    for percent in (-1, 101, float("nan"), float("inf")):
        with pytest.raises(ValueError, match="from 0 to 100"):
            check_step(Setting(State.DIAL, 10), State.DIAL, percent)
    with pytest.raises(ValueError, match="goes with the state dial, not with new"):
        check_step(Setting(State.DIAL, 10), State.NEW, 10)


def test_each_state_has_a_primary_and_what_is_written_to_it_is_brought_to_the_other_while_there_is_a_way_back() -> None:
    assert {state: (primary(state), mirrored(state)) for state in State} == {
        "old": ("old", None), "shadow": ("old", "new"), "dial": ("old", "new"), "new": ("new", "old"), "done": ("new", None),
    }  # fmt: skip


def test_the_share_of_keys_that_are_read_from_the_new_cache_grows_and_is_the_same_everywhere() -> None:
    keys = [b"session:%d" % n for n in range(5000)]
    before: set[bytes] = set()
    for percent in (0, 0.01, 1, 25, 99.5, 100):
        setting = Setting(State.DIAL, percent)
        read = {key for key in keys if reads_new(setting, key)}
        assert before <= read
        assert abs(len(read) - len(keys) * percent / 100) < 100
        before = read
    assert len(before) == len(keys)
    assert [reads_new(Setting(State.DIAL, 50), key) for key in keys[:6]] == [True, True, False, True, True, False]
    assert [reads_new(Setting(state), b"k") for state in State] == [False, False, False, True, True]


def test_a_setting_holds_from_its_moment_on() -> None:
    settings = [Setting(State.SHADOW, 0, 1000, 1), Setting(State.DIAL, 5, 2000, 2)]
    assert [in_force(settings, now) for now in (999, 1000, 1999.9, 2000)] == [BEGINNING, settings[0], settings[0], settings[1]]
    assert str(settings[1]) == "dial 5 %"
    assert in_force([], 1e15) == BEGINNING
