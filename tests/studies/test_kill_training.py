"""A training that is killed and resumed, again and again, ends with the weights of one that nobody killed."""

import json

import kill_training


def go(seed, kills, *, step):
    return {
        "kills": kills,
        "goes": [{"seed": seed, "kills": kills}],
        "steps_of_a_run": 20,
        "runs_that_came_to_their_end": 1,
        "last_logged_step_at_each_kill": [step] * kills,
        "weights_that_differ": [],
    }


def test_several_goes_count_as_one():
    both = kill_training.added(kill_training.added({}, go(0, 2, step=3)), go(2, 1, step=7))
    assert (both["kills"], both["steps_of_a_run"], both["runs_that_came_to_their_end"]) == (3, 20, 2)
    assert both["last_logged_step_at_each_kill"] == [3, 3, 7]
    assert [one["seed"] for one in both["goes"]] == [0, 2]


def test_the_committed_kills_left_all_weights_equal():
    results = json.loads(kill_training.OUTPUT.read_text())
    assert results["kills"] == len(results["last_logged_step_at_each_kill"]) >= 40
    assert results["runs_that_came_to_their_end"] >= 1 and results["weights_that_differ"] == []
    assert results["kills_that_left_half_written_files"] > 0
    assert len(set(results["last_logged_step_at_each_kill"])) > 5
