"""Drive sources: multichannel voltage supplies for heaters and modulators, one file per instrument."""
