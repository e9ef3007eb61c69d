"""`equabot serve` as a process: how it starts, refuses and stops."""

import json
import signal

from tests.journeys.conftest import MakeBroker
from tests.journeys.running import KEY, RunningBroker


def test_a_key_in_the_environment_is_all_it_needs(make_broker: MakeBroker) -> None:
    """No configuration, no file."""
    broker = make_broker(credentials={"ANTHROPIC_API_KEY": KEY}).start()
    assert broker.run("key", "anthropic").stdout == KEY + "\n"
    assert json.loads(broker.run("lease", "acquire", "anthropic", "--json").stdout)["profile"] == "anthropic:env"


def test_sigterm_and_ctrl_c_end_it_well(make_broker: MakeBroker) -> None:
    """It drains and exits with 0; its sockets are gone."""
    for number in (signal.SIGTERM, signal.SIGINT):
        broker = make_broker(dotenv=f"ANTHROPIC_API_KEY={KEY}\n").start()
        assert broker.process is not None
        broker.process.send_signal(number)
        assert broker.process.wait(60) == 0
        assert not broker.socket().exists()


def test_a_second_broker_on_one_run_directory_is_refused(running_broker: RunningBroker) -> None:
    """1 and one line; the first one serves on."""
    second = running_broker.run("serve")
    assert second.returncode == 1
    assert str(running_broker.run_dir) in second.stderr
    assert running_broker.run("key", "anthropic").returncode == 0


def test_a_port_that_is_taken_is_refused(running_broker: RunningBroker, make_broker: MakeBroker) -> None:
    """1 and one line that names the port."""
    second = make_broker(dotenv=f"ANTHROPIC_API_KEY={KEY}\n")
    done = second.run("serve", EQUABOT_LISTEN_HEALTH=running_broker.health)
    assert done.returncode == 1
    assert running_broker.health in done.stderr
    assert "Traceback" not in done.stderr


def test_its_log_is_json_where_it_is_collected(running_broker: RunningBroker) -> None:
    """Every line."""
    running_broker.stop()
    lines = [json.loads(line) for line in running_broker.log().splitlines()]
    assert lines
    assert all({"ts", "level", "message"} <= line.keys() for line in lines)
    assert KEY[:16] not in running_broker.log()


def test_kill_9_and_a_restart_lose_no_lease(running_broker: RunningBroker) -> None:
    """An agent that renews notices nothing."""
    lease = json.loads(running_broker.run("lease", "acquire", "anthropic", "--json").stdout)
    running_broker.kill()
    running_broker.start()
    assert running_broker.run("lease", "renew", lease["id"]).returncode == 0
