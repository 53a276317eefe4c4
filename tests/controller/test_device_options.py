"""Options of `photonloop` that have no meaning for a device are refused before anything is opened or started."""

from __future__ import annotations

from pathlib import Path

import pytest

from photonloop.controller.cli.main import main

SERVER, LAB, CHIP = "tcp://127.0.0.1:1", "lab:station.toml", "sim:ideal"


@pytest.mark.parametrize("device", [SERVER, LAB])
@pytest.mark.parametrize(
    ("command", "options"),
    [
        ("serve", ("--ports", "8")),
        ("serve", ("--stages", "2")),
        ("serve", ("--seed", "0")),
        ("serve", ("--realtime",)),
        ("describe", ("--ports", "8")),
        ("describe", ("--stages", "2")),
        ("describe", ("--seed", "0")),
        ("describe", ("--physics",)),
    ],
)
def test_options_of_virtual_chips_are_refused_for_other_devices(
    command: str, options: tuple[str, ...], device: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([command, device, *options]) == 1
    assert capsys.readouterr().err == (
        f"photonloop {command}: {options[0]} applies to virtual chips (sim…) only, but the device is {device}: "
        "leave the option out\n"
    )


@pytest.mark.parametrize("device", [CHIP, LAB])
def test_keys_for_connecting_are_refused_for_devices_that_are_not_servers(
    device: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    experiment = tmp_path / "small.toml"
    experiment.write_text('name = "small"\n[data]\nsource = "iris"\n', encoding="utf-8")
    refused = f"--keys applies to device servers (tcp://…, ipc://…) only, but the device is {device}: leave the option out\n"
    assert main(["describe", device, "--keys", "keys"]) == 1
    assert capsys.readouterr().err == f"photonloop describe: {refused}"
    assert main(["train", str(experiment), "--device", device, "--keys", "keys", "--runs", str(tmp_path / "runs")]) == 1
    assert capsys.readouterr().err == f"photonloop train: {refused}"
    assert not (tmp_path / "runs").exists()
    for command in (["train", "--resume"], ["evaluate"]):
        run = tmp_path / "run"
        run.mkdir(exist_ok=True)
        (run / "experiment.toml").write_text(experiment.read_text(encoding="utf-8"), encoding="utf-8")
        assert main([*command, str(run), "--device", device, "--keys", "keys"]) == 1
        assert capsys.readouterr().err == f"photonloop {command[0]}: {refused}"


@pytest.mark.parametrize("device", [CHIP, LAB])
def test_serve_names_the_option_for_the_keys_of_its_own_server(device: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["serve", device, "--keys", "keys"]) == 1
    assert capsys.readouterr().err == (
        f"photonloop serve: --keys applies to connections to a device server, but the device is {device}: "
        "give the keys of the new server with --server-keys\n"
    )


@pytest.mark.parametrize("device", [SERVER, CHIP])
def test_only_stations_have_instruments_to_check(device: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", device]) == 1
    assert "only a station, lab:station.toml, has instruments to check" in capsys.readouterr().err
