"""rram-22nm away from the setting that its table was measured at, against NeuroSim V1.5, which it was not made from."""

import re
from typing import Any

import pytest

from bitline.chip import load, replace
from bitline.cost.events import assumed
from bitline.cost.model import Cost, price
from bitline.cost.table import load as load_table
from bitline.mapping.lower import Matmul
from bitline.mapping.place import place

LAYERS = [
    Matmul(name, "conv2d", 9 * channels, outputs, 1, size**2, channels * size**2)
    for name, channels, outputs, size in (("conv3", 128, 256, 16), ("conv5", 256, 512, 8), ("conv6", 512, 512, 8))
]


def cost(*overrides: str) -> Cost:
    return price(place(LAYERS, replace(load("rram-22nm"), *overrides)))


def changes(*overrides: str) -> list[float]:
    """Conversions, accumulation and their areas over those of the preset."""

    def parts(of: Cost) -> list[float]:
        energy, area = of.energy_parts, of.area_parts
        return [energy["adc"], energy["shift_add"], area["adc"], area["shift_add"]]

    return [a / b for a, b in zip(parts(cost(*overrides)), parts(cost()), strict=True)]


def theirs(values: list[float], base: list[float]) -> list[float]:
    return [a / b for a, b in zip(values, base, strict=True)]


@pytest.mark.parametrize("cells", ["", "_100k"])
def test_within_its_limits_the_table_changes_as_the_tool_does(published, cells):
    measured: dict[str, Any] = published["neurosim_v15"]
    for point in measured[f"within{cells}"]:
        ours = changes(*point["change"])
        assert ours == pytest.approx(theirs(point["values"], measured[f"base{cells}"]), rel=point["tolerance"])
        assert not [note for note in cost(*point["change"]).notes if "was compared at" in note]


@pytest.mark.parametrize("cells", ["", "_100k"])
def test_outside_of_them_it_is_said_and_by_how_much(published, cells):
    measured: dict[str, Any] = published["neurosim_v15"]
    for point in measured[f"outside{cells}"]:
        over = theirs(changes(*point["change"]), theirs(point["values"], measured[f"base{cells}"]))
        assert over[0] == pytest.approx(point["conversions"], rel=0.01)
        assert over[1] == pytest.approx(point["accumulation"], rel=0.01)
        (note,) = [note for note in cost(*point["change"]).notes if "was compared at" in note]
        key, value = point["change"][0].split("=")
        assert note.startswith(f"{key} = {value}, and table neurosim-22nm was compared at")


def test_the_caution_of_the_table_is_what_both_versions_of_the_tool_print(published):
    runs = published["neurosim_v15"]["vgg8"]
    ratio = {part: runs["v15"][part] / runs["v13"][part] for part in runs["v13"]}
    caution = load_table("neurosim-22nm").caution

    figures = [float(text) for text in re.findall(r"\b\d\.\d\d\b", caution)]
    names = ("adc_uJ", "accumulation_uJ", "interconnect_uJ", "buffer_uJ", "dynamic_uJ", "adc_mm2", "area_mm2")
    assert figures == [pytest.approx(ratio[name], abs=0.005) for name in names]
    assert any(caution in note for note in cost().notes)


def test_other_adc_models_are_not_held_to_the_table_s_adc():
    notes = cost("adc.bits=8", "adc.model=isaac").notes
    assert not [note for note in notes if note.startswith("adc.bits")]
    assert [note for note in cost("adc.bits=8").notes if note.startswith("adc.bits = 8, and table neurosim-22nm was")]


def test_the_note_on_assumed_densities_has_the_published_total_of_vgg8(vgg8, published):
    placement = place(vgg8, load("rram-22nm"))
    (note,) = [note for note in price(placement).notes if note.startswith("bit densities are assumed")]
    told = float(re.findall(r"the energy is ([\d.]+) uJ", note)[0])
    density = published["vgg8"]["bit_density"]
    measured = price(placement, densities={each.matmul.name: assumed(each, density) for each in placement.layers})

    assert told == pytest.approx(1e6 * measured.energy_J, rel=1e-3)
    assert told == pytest.approx(published["vgg8"]["dynamic_uJ"], rel=0.15)
    assert not any(note.startswith("bit densities are assumed") for note in price(placement, fixed=True).notes)
