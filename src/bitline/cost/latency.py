"""Time of one layer for one image: reads or digital products, transfers that they do not hide, hops, the adder tree."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from bitline.cost.buffers import off_chip, tiles
from bitline.cost.digital import mac_time
from bitline.cost.events import Events, mux_rounds

if TYPE_CHECKING:
    from bitline.mapping.place import LayerPlacement


@dataclass(frozen=True)
class LayerTime:
    """Parts of a layer's latency, s.

    Args:
        read: crossbar reads and conversions.
        transfer: time of the bus, or of memory off the chip, beyond the reads that it overlaps.
        network: the first activation on its way from the layer before, a clock cycle a tile (assumed).
        merge: the last vector through the adder tree.
        digital_mac: products of a layer that is on no crossbar.
    """

    read: float
    transfer: float
    network: float
    merge: float
    digital_mac: float

    @property
    def total(self) -> float:
        """Latency of the layer, s."""
        return self.read + self.transfer + self.network + self.merge + self.digital_mac


def off_chip_time(events: Events) -> float:
    """Return how long a layer keeps the one channel to memory off the chip busy, s."""
    return events.off_chip_bits * off_chip().bit_time.si


def layer_time(layer: LayerPlacement, events: Events, conversion: float) -> LayerTime:
    """Time a layer.

    All crossbars of a layer work at once; one of more rows than are active, or of several lanes, is read in steps. With
    sample-and-hold the conversions of one read hide behind the next (ISAAC, ISCA 2016, section 4); without, the
    wordlines are driven again for each column that shares an ADC (DNN+NeuroSim V1.3, synchronous mode). The bus
    carries the next vector meanwhile, and one channel for all copies what buffers do not hold and memory off the chip
    does; links between tiles are as wide as the bus, so that they keep up with it.

    Args:
        layer: as placed.
        events: of the layer.
        conversion: time of one, s.
    """
    timing, system = layer.chip.timing, layer.chip.system
    rounds = mux_rounds(layer)
    apart = rounds * (timing.read + conversion)
    step = max(timing.read, rounds * conversion) if timing.sample_and_hold else apart
    vectors = math.ceil(events.vectors / system.copies)
    read, digital = layer.digits * layer.steps * step, mac_time(layer)
    deepest = max(1, *layer.partial_sums)
    beats = math.ceil(events.bus_bits / (events.vectors * tiles(layer.chip, layer.crossbars) * system.bus_bits))
    spilled = off_chip_time(events) / vectors  # copies share the channel
    exposed = max(0.0, max(beats / timing.clock, spilled) - read - digital)
    network = events.hops / timing.clock if events.activation_bits else 0.0
    merge = (math.ceil(math.log2(deepest)) + 1) / timing.clock
    return LayerTime(vectors * read, vectors * exposed, network, merge, vectors * digital)
