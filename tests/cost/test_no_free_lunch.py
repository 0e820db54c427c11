"""No knob of a chip gives something for nothing: what shrinks never saves time, what grows never saves area or energy.

One law is excepted and stated: a wider port of a buffer shares its decoder, so that a bit costs less (CACTI 7).
"""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bitline.chip import Chip, load, replace
from bitline.cost.adc import MODELS, adc_cost, turns
from bitline.cost.buffers import needed_bits, off_chip, spills
from bitline.cost.model import Cost, price
from bitline.cost.table import load as load_table
from bitline.errors import ChipError
from bitline.mapping.lower import Matmul
from bitline.mapping.place import place

SLACK = 1 + 1e-9
CHIPS = ("isaac-32nm", "rram-22nm", "example-128", "crimp-32nm", "strip-22nm")
NEED = 128 * (2 * 32 + 3) * 8
"""bits of a 3 x 3 kernel's rows of 128 x 32 x 32 inputs of 8 bits, less what the last row need not hold"""


def conv(name: str, channels: int, outputs: int, size: int) -> Matmul:
    window = channels * (2 * size + 3)
    return Matmul(name, "conv2d", 9 * channels, outputs, 1, size**2, channels * size**2, window=window)


@st.composite
def networks(draw: st.DrawFn) -> list[Matmul]:
    sizes = st.tuples(st.sampled_from([1, 3, 16, 100]), st.sampled_from([4, 40, 200]), st.sampled_from([1, 4, 32]))
    layers = [conv(f"layer{i}", *draw(sizes)) for i in range(draw(st.integers(1, 3)))]
    if draw(st.booleans()):
        rows = draw(st.sampled_from([10, 700]))
        layers.append(Matmul("last", "linear", rows, draw(st.sampled_from([10, 300])), inputs=rows, window=rows))
    return layers


@st.composite
def chips(draw: st.DrawFn) -> Chip:
    chip = replace(
        load(draw(st.sampled_from(CHIPS))),
        f"adc.model={draw(st.sampled_from(MODELS))}",
        f"timing.sample_and_hold={draw(st.sampled_from(['true', 'false']))}",
        f"system.buffer_kib={draw(st.sampled_from([4, 16, 64]))}",
        f"cell_cost={draw(st.sampled_from(['conductance', 'table']))}",
    )
    return chip.model_copy(update={"system": chip.system.model_copy(update={"tiles": None})})


def pair(draw: st.DataObject, values: list[str]) -> tuple[str, str]:
    low, high = sorted(draw.draw(st.lists(st.sampled_from(range(len(values))), min_size=2, max_size=2, unique=True)))
    return values[low], values[high]


def costs(layers: list[Matmul], chip: Chip, key: str, values: tuple[str, str]) -> tuple[Cost, Cost]:
    small, large = (price(place(layers, replace(chip, f"{key}={value}"))) for value in values)
    return small, large


@settings(max_examples=60)
@given(networks(), chips(), st.data())
def test_a_wider_bus_never_saves_area_nor_a_narrower_one_time(layers, chip, data):
    widths = [str(width) for width in (1, 8, 63, 64, 65, 100, 200, 255, 256, 257, 1000, 65536)]
    narrow, wide = costs(layers, chip, "system.bus_bits", pair(data, widths))

    assert wide.area_m2 > narrow.area_m2
    assert wide.area_parts["bus"] > narrow.area_parts["bus"]
    assert wide.latency_s <= narrow.latency_s * SLACK
    assert wide.energy_parts["bus"] >= narrow.energy_parts["bus"] / SLACK
    # Beside the buffer's ports, only leakage can fall: by the time that is saved.
    for part in wide.energy_parts.keys() - {"buffer", "leakage"}:
        assert wide.energy_parts[part] >= narrow.energy_parts[part] / SLACK


@settings(max_examples=60)
@given(networks(), chips(), st.data())
def test_a_faster_adc_never_saves_area_or_energy_nor_a_slower_one_time(layers, chip, data):
    rates = pair(data, ["1 MHz", "100 MHz", "1280 MHz", "1290 MHz", "10000 MHz", "200000 MHz"])
    slow, fast = costs(layers, chip, "adc.sample_rate", rates)

    assert fast.area_m2 >= slow.area_m2 / SLACK
    assert fast.latency_s <= slow.latency_s * SLACK
    for part in fast.energy_parts.keys() - {"leakage"}:
        assert fast.energy_parts[part] >= slow.energy_parts[part] / SLACK
    if fast.latency_s < slow.latency_s and float(rates[1].removesuffix(" MHz")) > 1280:
        # Faster than any model has it: it takes more area, or more energy.
        assert fast.area_m2 > slow.area_m2 or fast.energy_parts["adc"] > slow.energy_parts["adc"]


@settings(max_examples=40)
@given(networks(), chips(), st.data())
def test_fewer_adcs_never_save_time_or_energy_nor_more_of_them_area(layers, chip, data):
    many, few = costs(layers, chip, "adc.columns_per_adc", pair(data, ["1", "2", "8", "9", "64", "128"]))

    assert few.area_m2 <= many.area_m2 * SLACK
    assert few.latency_s >= many.latency_s / SLACK
    # Tiles shrink with their ADCs, and so do the wires across them; nothing else gets cheaper.
    for part in few.energy_parts.keys() - {"bus", "network"}:
        assert few.energy_parts[part] >= many.energy_parts[part] / SLACK


@settings(max_examples=40)
@given(networks(), chips(), st.data())
def test_dacs_of_more_bits_never_save_area(layers, chip, data):
    few, many = costs(layers, chip, "dac.bits", pair(data, [str(bits) for bits in range(1, 9)]))

    assert many.area_parts["row_drivers"] > few.area_parts["row_drivers"]
    # Registers hold sums that are less wide; 2 um2 or more for each code of a row's DAC outweigh that.
    assert many.area_m2 > few.area_m2
    assert any(note.startswith("DACs of ") for note in many.notes)


@settings(max_examples=40)
@given(networks(), chips(), st.data())
def test_a_buffer_too_small_for_its_layers_costs_more_energy_and_no_less_time_than_the_smallest_that_holds_them(
    layers, chip, data
):
    sizes = [2, 4, 8, 16, 32, 64, 128, 256, 512]
    fits = {kib: not any(spill.share for spill in spills(at(layers, chip, kib))) for kib in sizes}
    enough = [kib for kib in sizes if fits[kib]]
    lacking = [kib for kib in sizes if not fits[kib]]
    assert sorted(lacking + enough) == sizes == lacking + enough
    if not enough:
        return
    best = price(at(layers, chip, enough[0]))
    for kib in enough[1:]:
        larger = price(at(layers, chip, kib))
        assert larger.area_m2 > best.area_m2
        assert larger.energy_J >= best.energy_J / SLACK
        assert larger.latency_s == best.latency_s
    before = best
    for kib in reversed(lacking):
        smaller = price(at(layers, chip, kib))
        assert smaller.energy_parts["off_chip"] > before.energy_parts["off_chip"]
        assert smaller.energy_J > best.energy_J
        assert smaller.latency_s >= before.latency_s
        before = smaller


def at(layers: list[Matmul], chip: Chip, kib: int):
    return place(layers, replace(chip, f"system.buffer_kib={kib}"))


def test_a_buffer_of_two_kib_holds_a_quarter_of_three_rows_and_the_rest_goes_off_the_chip():
    layer = conv("m", 128, 128, 32)
    placement = at([layer], load("rram-22nm"), 2)

    (spill,) = spills(placement)
    assert spill.needed == needed_bits(placement.layers[0]) == NEED
    assert spill.share == pytest.approx(1 - 2 * 8192 / NEED)
    cost = price(placement)
    moved = spill.share * (1024 * 1152 * 8 + 128 * 1024 * 8)
    assert cost.energy_parts["off_chip"] == pytest.approx(moved * 20.3e-12, rel=1e-6)
    (note,) = [note for note in cost.notes if "off the chip" in note]
    assert "buffers of 2 KiB a tile (system.buffer_kib) are too small for 1 layers, most of all m" in note
    assert price(at([layer], load("rram-22nm"), 16)).energy_parts["off_chip"] == 0


CHANNEL = 12.8e9 * 8
"""bits a second of memory off the chip"""
SIX = [conv(f"m{i}", 128, 128, 32) for i in range(6)]
MOVED = (6 - 4 * 2 * 8192 / NEED) * (1024 * 1152 * 8 + 128 * 1024 * 8)
"""bits that all of them, in four tiles with buffers of 2 KiB, move off and onto the chip"""


def test_layers_of_a_pipeline_share_the_channel_off_the_chip():
    cost = price(at(SIX, load("rram-22nm"), 2))
    assert cost.energy_parts["off_chip"] == pytest.approx(MOVED * 20.3e-12)
    assert cost.interval_s == pytest.approx(MOVED / CHANNEL, rel=1e-3)
    assert cost.interval_s > max(layer.latency_s for layer in cost.layers)
    assert any("over one channel of 12.8 GB/s for all layers" in note for note in cost.notes)
    fits = price(at(SIX, load("rram-22nm"), 64))
    assert fits.interval_s == max(layer.latency_s for layer in fits.layers)


def test_copies_of_a_layer_share_the_channel_off_the_chip():
    (layer,) = price(at(SIX[:1], replace(load("rram-22nm"), "system.copies=64"), 2)).layers
    assert layer.events.off_chip_bits > 0
    assert layer.latency_s >= layer.events.off_chip_bits / CHANNEL


@pytest.mark.parametrize("chip", ["rram-22nm", "isaac-32nm"])
def test_ports_of_a_buffer_beyond_the_widest_are_paid_for(chip):
    one, two, many = (
        price(at(SIX[:1], replace(load(chip), "system.tiles=100", f"system.bus_bits={wires}"), 64))
        for wires in (256, 257, 1024)
    )
    assert two.area_parts["buffer"] == pytest.approx(2 * one.area_parts["buffer"])
    assert many.area_parts["buffer"] == pytest.approx(4 * one.area_parts["buffer"])
    if chip == "rram-22nm":
        buffers = 100 * 9.621e-6  # CACTI: 64 KiB at 22 nm, port of 256 bits
        assert many.leakage_W - one.leakage_W == pytest.approx(3 * buffers)
    said = "system.bus_bits = 1024: buffers have 4 ports of 256 bits, each with the area and the leakage of a whole"
    assert any(note.startswith(said) for note in many.notes)
    assert not any("ports of" in note for note in one.notes)


def test_memory_off_the_chip_takes_the_time_of_its_channel_where_reads_do_not_hide_it():
    layer = Matmul("m", "linear", 100_000, 1, positions=10, inputs=1_000_000, window=100_000)
    placement = at([layer], load("rram-22nm"), 2)

    cost = price(placement)
    share = 1 - 13 * 2 / (100_000 / 1024)  # 782 crossbars in 13 tiles
    assert spills(placement)[0].share == pytest.approx(share)
    bits = cost.layers[0].events.off_chip_bits / 10
    assert off_chip().bit_time.si == pytest.approx(1 / (12.8e9 * 8), rel=1e-3)
    read = cost.latency_parts["read"] / 10
    assert cost.latency_parts["transfer"] == pytest.approx(10 * (bits * 9.77e-12 - read))


def test_buffers_of_a_tile_are_shared_by_its_layers():
    layers = [conv(f"m{i}", 64, 1, 32) for i in range(4)]  # 33.5 KiB in all, 8.4 each; 20 crossbars
    placement = at(layers, load("rram-22nm"), 16)

    assert [spill.share for spill in spills(placement)] == pytest.approx([1 - 16 * 8192 / (4 * NEED / 2)] * 4)


def test_weights_of_digital_units_lie_in_the_buffer_too():
    layer = Matmul("m", "conv2d", 9, 1, 64, 1024, 64 * 1024, depthwise=True, window=64 * 67)
    placed = place([layer], load("rram-22nm"), {"depthwise": "digital"}).layers[0]

    assert needed_bits(placed) == 8 * (64 * 67 + 64 * 9)


def test_a_network_on_one_tile_pays_nothing_for_the_network_between_tiles():
    small = Matmul("m", "linear", 64, 10, inputs=64)
    cost = price(place([small], load("rram-22nm")))

    assert cost.tiles == 1
    assert cost.energy_parts["network"] == cost.latency_parts["network"] == 0


def test_an_activation_passes_no_more_tiles_than_there_are_and_each_takes_energy_and_a_cycle():
    layers = [Matmul(f"m{i}", "linear", 128, 32 * 64, inputs=128) for i in range(3)]  # 64 crossbars each: 3 tiles
    cost = price(place(layers, load("rram-22nm")))
    few = price(place(layers, replace(load("rram-22nm"), "system.hops=1")))

    assert cost.tiles == 3
    assert cost.layers[0].events.hops == 2
    assert cost.energy_parts["network"] == pytest.approx(2 * few.energy_parts["network"])
    assert cost.latency_parts["network"] == pytest.approx(3 * 2 * 1e-9)
    assert "system.hops = 7: in 3 tiles an activation passes 2 at most" in cost.notes


def test_an_adc_faster_than_its_model_is_several_that_take_turns():
    chip = replace(load("isaac-32nm"), "adc.sample_rate=10 GHz")
    table = load_table("isaac-32nm")

    assert turns("isaac", load("isaac-32nm"), table) == turns("table", load("isaac-32nm"), table) == 1
    assert turns("isaac", chip, table) == turns("table", chip, table) == 8
    # 8 bits and 128 rows: 8 (0.00653 128 + 0.64) ns = 11.8 ns.
    assert turns("zigzag", chip, table) == 119
    for model in ("isaac", "table"):
        one, many = adc_cost(model, load("isaac-32nm"), table), adc_cost(model, chip, table)
        assert many.area == pytest.approx(8 * one.area)
        assert many.energy == one.energy
        assert many.time == pytest.approx(1e-10)
    assert adc_cost("survey", chip, table).energy > 2 * adc_cost("survey", load("isaac-32nm"), table).energy
    layer = Matmul("m", "linear", 64, 10, inputs=64)
    assert any(
        "8 ADCs of model isaac take turns at adc.sample_rate = 10 GHz" in n for n in price(place([layer], chip)).notes
    )


def test_a_clock_is_limited_by_the_node_and_what_it_does_not_pay_is_noted():
    layer = Matmul("m", "linear", 64, 10, inputs=64)

    with pytest.raises(ChipError, match=r"timing.clock = 15 GHz: logic at 65 nm reaches 7.692 GHz at most"):
        price(place([layer], replace(load("rram-22nm"), "node=65 nm", "timing.clock=15 GHz")))
    cost = price(place([layer], replace(load("rram-22nm"), "timing.clock=4 GHz")))
    assert any(note.startswith("timing.clock = 4 GHz") and "not priced" in note for note in cost.notes)
    assert not any(note.startswith("timing.clock") for note in price(place([layer], load("rram-22nm"))).notes)


@pytest.mark.parametrize(
    ("node", "clock"), [("65 nm", "5 GHz"), ("45 nm", "5.2 GHz"), ("90 nm", "3.8 GHz"), ("250 nm", "1 GHz")]
)
def test_processors_that_were_built_are_priced_and_it_is_noted_that_their_logic_is_fast(node, clock):
    """POWER6, z196, Pentium 4 and Alpha 21264B."""
    layer = Matmul("m", "linear", 64, 10, inputs=64)
    cost = price(place([layer], replace(load("rram-22nm"), f"node={node}", f"timing.clock={clock}")))
    assert any(note.startswith(f"timing.clock = {clock}: logic at {node} mostly reaches") for note in cost.notes)


@pytest.mark.parametrize(("node", "clock"), [("200 nm", 1e9), ("350 nm", 1 / 1.75e-9), ("1 um", 0.2e9)])
def test_a_clock_that_is_not_said_is_one_that_logic_of_an_old_node_reaches(node, clock):
    layer = Matmul("m", "linear", 64, 10, inputs=64)
    for chip in (load("example-128", [f"node={node}"]), replace(load("example-128"), f"node={node}")):
        assert chip.timing.clock == pytest.approx(clock)
        notes = price(place([layer], chip)).notes
        assert any("mostly reaches" in note and note.startswith("timing.clock = ") for note in notes)
        assert replace(chip, "node=22 nm").timing.clock == 1e9
        assert load("example-128", [f"node={node}", "timing.clock=10 MHz"]).timing.clock == 10e6


def test_a_dac_of_eight_bits_has_a_capacitor_for_each_code_in_every_row():
    layer = Matmul("m", "linear", 64, 10, inputs=64)
    one, eight = (price(place([layer], replace(load("example-128"), f"dac.bits={bits}"))) for bits in (1, 8))

    more = eight.area_parts["row_drivers"] - one.area_parts["row_drivers"]
    assert more == pytest.approx(8 * 128 * 256 * 2.13338e-12)  # 8 crossbars of a macro
