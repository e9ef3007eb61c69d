"""`equabot gateway config`: Envoy's configuration, without a broker."""

import json
from pathlib import Path

import pytest
import yaml

from equabot_broker.config.gateway import gateway_of
from equabot_broker.config.load import load
from equabot_broker.envoy.bootstrap_config import bootstrap_config
from equabot_cli.main import main


def test_it_prints_what_a_broker_would_write(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """As YAML, or as JSON; the same document."""
    file = tmp_path / "equabot.yaml"
    file.write_text('listen: {gateway: "127.0.0.1:9999"}\n')
    places = ["--config", str(file), "--run-dir", str(tmp_path / "run")]
    assert main(["gateway", "config", *places]) == 0
    written = yaml.safe_load(capsys.readouterr().out)
    assert main(["gateway", "config", "--json", *places]) == 0
    assert json.loads(capsys.readouterr().out) == written
    config = load(config_path=str(file), run_dir=str(tmp_path / "run"), environ={})
    assert written == bootstrap_config(gateway_of(config))


def test_a_bad_configuration_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """With 64, naming the key."""
    file = tmp_path / "equabot.yaml"
    file.write_text("gateway: {mode: sometimes}\n")
    assert main(["gateway", "config", "--config", str(file)]) == 64
    assert "gateway.mode" in capsys.readouterr().err
