"""First light on a bench with four ports: one input at a time, all heaters at 0 V and at 2 V."""

import numpy as np

from photonloop.controller.device.open_device import open_device

opened = open_device("lab:station.toml", write=True)
try:
    stage = opened.device.describe().stages[0]
    drives = np.array([[0.0], [2.0]]) * np.ones(stage.channels)
    readings = opened.device.evaluate(drives, np.eye(4), stage.name)
    print(np.array_str(readings.values * 1e3, precision=3, suppress_small=True), "mA")
finally:
    opened.close()  # heaters to 0 V, light off
