"""Compatibility of an experiment and a device.

The size of a virtual chip follows from the experiment. For every other device `check_fits` refuses an experiment that
the device cannot carry out.
"""

from __future__ import annotations

from photonloop.controller.calibration.calibration_file import load_calibration
from photonloop.controller.data.datasets import Dataset
from photonloop.controller.device.address import DeviceAddress
from photonloop.controller.device.processes import VirtualChip
from photonloop.controller.experiment import Experiment
from photonloop.controller.learning.estimators import estimator
from photonloop.controller.learning.network import Layer
from photonloop.protocols.config import ConfigError
from photonloop.protocols.device import DeviceDescription


def virtual_chip(address: DeviceAddress, experiment: Experiment, dataset: Dataset) -> VirtualChip:
    """Return ports, stages and seed of the virtual chip for a new run; all None for a chip file, which fixes them.

    With calibrated phases it is the chip that was calibrated.
    """
    if address.is_chip_file:
        return VirtualChip()
    if experiment.variables == "phase" and experiment.calibration is not None:
        return described_chip(address, load_calibration(experiment.calibration).device)
    needed = max(dataset.x_train.shape[1] + (experiment.encoding.reference > 0), len(dataset.classes))
    ports = experiment.network.ports or needed + needed % 2
    return VirtualChip(ports=ports, stages=experiment.network.layers, seed=experiment.seed)


def same_chip(address: DeviceAddress, before: DeviceDescription, seed: int) -> VirtualChip:
    """Return ports, stages and seed of a run's virtual chip; all None for a chip file, which fixes them."""
    if address.is_chip_file:
        return VirtualChip()
    if before.kind == "simulator" and "seed" in before.serials:
        seed = int(before.serials["seed"])  # of a calibrated chip, which may differ from that of the experiment
    return VirtualChip(ports=before.input_ports, stages=len(before.stages), seed=seed)


def described_chip(address: DeviceAddress, before: DeviceDescription, given: VirtualChip | None = None) -> VirtualChip:
    """Return ports, stages and seed of a virtual chip: those that are `given`, and otherwise those of a description.

    They are None for a chip file, which fixes them, and for other devices.
    """
    given, seed = given or VirtualChip(), before.serials.get("seed")
    if address.kind != "sim" or address.is_chip_file or before.kind != "simulator":
        return given
    return VirtualChip(
        ports=before.input_ports if given.ports is None else given.ports,
        stages=len(before.stages) if given.stages is None else given.stages,
        seed=int(seed) if given.seed is None and seed is not None else given.seed,
    )


def check_fits(experiment: Experiment, description: DeviceDescription, layers: list[Layer], samples: int) -> None:
    """Refuse an experiment whose updates the device would refuse, or that needs inputs that the device does not have.

    Parameters
    ----------
    experiment
        The experiment.
    description
        The device.
    layers
        The layers of the network on the device.
    samples
        Number of samples in the training set.

    Raises
    ------
    ConfigError
        The sentence names the key, its value and the limit of the device.
    """
    if description.inputs_at_once == "one":
        raise ConfigError(
            f"the device {description.name!r} lights one input at a time (inputs_at_once is 'one'), which is enough to calibrate "
            "it, but not to train: give every input a modulator, or train on another device"
        )
    limits, spec = description.limits, experiment.estimator
    batch, settings = min(experiment.training.batch, samples), 2 * spec.directions
    if batch > limits.max_batch:
        raise ConfigError(f"training.batch is {batch}, but the device takes {limits.max_batch} samples at once")
    if settings > limits.max_settings:
        raise ConfigError(
            f"estimator.directions is {spec.directions}, but the device takes {limits.max_settings} settings at once"
        )
    for layer in layers:
        readings = settings * batch * layer.stage.tap_ports
        if readings > limits.max_readings:
            raise ConfigError(
                f"estimator.directions {spec.directions} and training.batch {batch} give {readings} readings, but the device "
                f"takes {limits.max_readings} at once"
            )
        if spec.probe_step_rad != "auto":
            try:
                layer.space.bounds(estimator(spec).probe_extent(spec.probe_step_rad, layer.groups))
            except ValueError as error:
                raise ConfigError(f"estimator.probe_step_rad is {spec.probe_step_rad:g}, but {error}") from None
