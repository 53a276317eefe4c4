"""Draw the picture in the README from a finished run.

    python scripts/studies/picture.py runs/digits docs/digits.png

One row per layer: phases θ on the mesh before and after training, and the accuracies over the epochs.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure

from photonloop.controller.report.colours import phase_wheel
from photonloop.controller.runs.run_folder import DEVICE, read_checkpoint, read_events
from photonloop.protocols.device import DeviceDescription, StageDescription


def draw_mesh(axes: Axes, stage: StageDescription, phases: np.ndarray, title: str) -> None:
    """Draw θ of every interferometer at its column and top mode; `phases` [rad] has shape (channels,).

    Channels of a stage without a layout are drawn row by row, as many per row as the stage has ports.
    """
    rows = [(k % stage.ports, k // stage.ports, k, k) for k in range(stage.channels)]
    layout = np.array(stage.layout or rows)
    wheel = ListedColormap(list(phase_wheel()))
    theta = np.mod(phases[layout[:, 2]], 2 * np.pi)
    axes.scatter(layout[:, 0], layout[:, 1] + 0.5, c=theta, cmap=wheel, vmin=0, vmax=2 * np.pi, s=5, marker="s", linewidths=0)
    axes.set(title=title, xticks=[], yticks=[])
    axes.invert_yaxis()
    axes.set_aspect("equal")
    for side in axes.spines.values():
        side.set_visible(False)


def draw_curves(axes: Axes, events: list[dict], layer: int) -> None:
    """Draw the accuracies of one layer over its epochs."""
    evaluated = [e for e in events if e["event"] == "epoch" and e["layer"] == layer and e["test_accuracy"] is not None]
    epochs = [e["epoch"] for e in evaluated]
    axes.plot(epochs, [e["train_accuracy"] for e in evaluated], color="0.6", lw=1, label="train")
    axes.plot(
        epochs,
        [e["test_accuracy"] for e in evaluated],
        color="#b5542b",
        lw=1.6,
        label=f"test, {evaluated[-1]['test_accuracy']:.3f}",
    )
    axes.set(title=f"layer {layer + 1}: accuracy", xlabel="epoch", ylim=(0, 1))
    axes.legend(frameon=False, loc="lower right")
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("picture", type=Path)
    args = parser.parse_args()
    device = DeviceDescription.model_validate_json((args.run / DEVICE).read_text(encoding="utf-8"))
    checkpoint, events = read_checkpoint(args.run), read_events(args.run)
    layers = sum(name.startswith("variables_") for name in checkpoint)
    mpl.rcParams["font.size"] = 8
    figure = Figure(figsize=(8, 2.6 * layers), layout="constrained")
    panels = figure.subplots(layers, 3, squeeze=False)
    for layer in range(layers):
        stage = device.stages[layer]
        draw_mesh(panels[layer, 0], stage, checkpoint[f"initial_{layer}"], f"layer {layer + 1}: θ before")
        draw_mesh(panels[layer, 1], stage, checkpoint[f"variables_{layer}"], "θ after")
        draw_curves(panels[layer, 2], events, layer)
    figure.savefig(args.picture, dpi=150)
    return 0


if __name__ == "__main__":
    sys.exit(main())
