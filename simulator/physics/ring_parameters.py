"""Parameters of the rings and lasers of a weight bank, and the number of wavelengths that rings can separate."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

FINESSE_PER_WAVELENGTH = 5.0
"""Least finesse per wavelength of a weight bank. Weights differ by 0.03 rms from those of independent rings then, and
by 0.13 with interference."""


class RingParameters(BaseModel):
    """The rings of a weight_bank, one per row and wavelength, and the wavelengths of its lasers.

    `heater` describes the rings' heaters; P_π tunes a ring by half a free spectral range.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    finesse: Annotated[float, Field(ge=2, le=1e5)] = 30.0
    """Free spectral range divided by the full width at half maximum of the resonance."""
    cold_rad: Annotated[float, Field(ge=0, le=100)] = 0.0
    """Designed detuning at 0 V: the round-trip phase missing to resonance with the ring's wavelength [rad]."""
    drop_loss_db: Annotated[float, Field(ge=0, le=20)] = 0.0
    """Loss from the input to the drop port in resonance [dB]."""
    row_loss_db: Annotated[float, Field(ge=0, le=60)] = 0.0
    """Loss to and through a row, equal for both detectors, without the equal split between banks and rows [dB]."""
    spectral_crosstalk: bool = False
    """True if each ring acts on every wavelength. The wavelengths are equally spaced over one free spectral range."""
    bus_interference: bool = False
    """True if light of one wavelength that several rings of a row drop interferes on the drop bus, from which rings
    also couple light back into the row; without effect unless spectral_crosstalk is true."""
    bus_ratio: Annotated[float, Field(ge=0, le=1000)] = 2.0
    """Length of waveguide between neighbouring rings of a row, on both buses together, in circumferences of a ring."""
    crowded: bool = False
    """True to allow spectral crosstalk with more wavelengths than finesse / 5, which rings cannot separate well."""
    fsr_nm: Annotated[float, Field(gt=0, le=1000)] = 10.0
    """Free spectral range of the rings [nm]."""


def check_crowding(ring: RingParameters, wavelengths: int) -> None:
    """Check that rings with spectral crosstalk can separate the wavelengths of a weight bank.

    Raises
    ------
    ValueError
        If there are more than finesse / 5 wavelengths and `crowded` is false.
    """
    most = int(ring.finesse / FINESSE_PER_WAVELENGTH)
    if ring.spectral_crosstalk and not ring.crowded and wavelengths > most:
        raise ValueError(
            f"ports is {wavelengths}, but with ring.spectral_crosstalk rings of finesse {ring.finesse:g} separate only {most} "
            f"wavelengths (finesse / {FINESSE_PER_WAVELENGTH:g}): use fewer ports or a higher ring.finesse, "
            "or set ring.crowded to true"
        )
