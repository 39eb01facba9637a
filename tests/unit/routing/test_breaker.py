from __future__ import annotations

from vllm_vlinders.routing.breaker import Breaker


def test_requests_that_were_under_way_when_it_opened_do_not_lengthen_the_rest() -> None:
    breaker = Breaker(failures=3, rest=10)
    for _ in range(20):
        breaker.start()
    for number in range(20):
        breaker.fail(number / 1000)
    assert not breaker.ready(10)
    assert breaker.ready(10.1)
    breaker.start()
    breaker.fail(11)
    assert not breaker.ready(30.9)
    assert breaker.ready(31)
