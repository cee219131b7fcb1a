"""How the launchers of several nodes find each other and agree on how it ended."""

import socket

import pytest

from empg_trainer.peers import NotMet, resolve, verdict


@pytest.mark.parametrize(
    ("ends", "expected"),
    [
        ([0, 0], 0),
        ([1, 0], 1),
        ([137, 1], 137),
        ([1, 75], 75),
        ([76, 75], 76),
        ([1, 75, 65], 65),
        ([64, 1], 64),
    ],
)
def test_the_cause_counts_and_not_what_it_led_to(ends, expected):
    assert verdict(ends) == expected


def test_a_name_that_is_known_late_is_waited_for():
    asked = []

    def look_up(host, port, **_):
        asked.append((host, port))
        if len(asked) < 4:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    resolve("run-0.run", 29400, 60, look_up=look_up, pause=0.01)
    assert asked == [("run-0.run", 29400)] * 4


def test_a_name_that_never_comes_is_named():
    with pytest.raises(NotMet, match=r"MASTER_ADDR: no-such-host\.invalid has no address after 0\.05 s"):
        resolve("no-such-host.invalid", 1, 0.05, pause=0.01)
