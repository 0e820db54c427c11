import re
from importlib import resources

import pytest

from bitline.chip import load as load_chip
from bitline.chip import presets
from bitline.cost.model import price
from bitline.cost.table import load, tables
from bitline.errors import ChipError
from bitline.mapping.lower import Matmul
from bitline.mapping.place import place


@pytest.fixture
def text() -> str:
    return (resources.files("bitline.cost") / "tables" / "isaac-32nm.toml").read_text("utf-8")


@pytest.mark.parametrize("name", tables())
def test_every_entry_of_every_table_has_a_source_and_a_status(name):
    entries = load(name).entries()

    assert len(entries) > 25
    for entry in entries.values():
        assert len(entry.source) > 5
        assert entry.status in ("measured", "read", "recalled", "assumed", "scaled")
        assert entry.si >= 0


@pytest.mark.parametrize("name", tables())
def test_an_entry_contained_in_another_names_one_of_the_table(name):
    entries = load(name).entries()

    for entry in entries.values():
        assert not entry.within or entries[entry.within].value > 0


def test_every_preset_has_its_cost_table():
    for name in presets():
        assert load(load_chip(name).cost_table)


def test_an_unknown_entry_is_refused_with_the_nearest_known_one(text, tmp_path):
    file = tmp_path / "mine.toml"
    file.write_text(text.replace("[adc_energy]", "[adc_enery]"), "utf-8")

    with pytest.raises(ChipError, match=r"unknown key adc_enery; did you mean 'adc_energy'") as error:
        load(str(file))
    assert "adc_energy is missing" in str(error.value)


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        ('value = 1562.5\nunit = "fJ"', 'value = 1562.5\nunit = "um2"', r"adc_energy: .*'um2' is not in J"),
        ('value = 1562.5\nunit = "fJ"', 'value = 1562.5\nunit = "xJ"', r"adc_energy: '1562.5 xJ' is not in J"),
        ("value = 1562.5", "value = -1.0", r"adc_energy.value = -1.0: .*greater than or equal to 0"),
        ('status = "read"', 'status = "guessed"', r"status = 'guessed'.*'measured'"),
        ('source = "ISAAC Table I"', 'source = ""', r"source = ''.*at least 1 character"),
        ('within = "wordline_energy"', 'within = "wordline_energy"\nnode = 1', r"not TOML"),
        ("adc_bits = 8", "adc_bits = 8\nadc_bit = 8", r"unknown key adc_bit; did you mean 'adc_bits'"),
    ],
)
def test_a_wrong_entry_is_refused_with_its_value_and_the_rule(text, tmp_path, before, after, message):
    assert before in text
    file = tmp_path / "mine.toml"
    file.write_text(text.replace(before, after, 1), "utf-8")

    with pytest.raises(ChipError, match=message):
        load(str(file))


def test_a_number_counted_within_another_must_be_zero(text, tmp_path):
    file = tmp_path / "mine.toml"
    file.write_text(text.replace("value = 0\n", "value = 3\n", 1), "utf-8")

    with pytest.raises(ChipError, match=r"value 3 with within = 'wordline_energy': it would be counted twice"):
        load(str(file))


def test_a_table_that_does_not_exist_is_refused_with_the_nearest_one():
    with pytest.raises(ChipError, match=r"no cost table 'isaac-23nm'.*did you mean 'isaac-32nm'"):
        load("isaac-23nm")


def test_an_edited_table_is_read_again_in_the_same_process_and_a_relative_name_from_where_one_is(
    text, tmp_path, monkeypatch
):
    for folder, energy in (("a", "1562.5"), ("b", "2000.0")):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "mine.toml").write_text(text.replace("1562.5", energy), "utf-8")

    monkeypatch.chdir(tmp_path / "a")
    assert load("mine.toml").adc_energy.si == pytest.approx(1562.5e-15)
    monkeypatch.chdir(tmp_path / "b")
    assert load("mine.toml").adc_energy.si == pytest.approx(2000e-15)
    (tmp_path / "b" / "mine.toml").write_text(text.replace("1562.5", "3000.0"), "utf-8")
    assert load("mine.toml").adc_energy.si == pytest.approx(3000e-15)


@pytest.mark.parametrize(
    ("chip", "said"),
    [("isaac-32nm", {"adc_time"}), ("rram-22nm", {"buffer_energy and no buffer_area", "bus_energy and no hop_energy"})],
)
def test_entries_that_a_table_lacks_are_noted_with_what_prices_them_instead(chip, said):
    notes = price(place([Matmul("m", "linear", 64, 8, inputs=64)], load_chip(chip))).notes

    found = {note.split(" has no ")[1].split(":")[0] for note in notes if re.match(r"table \S+ has no ", note)}
    assert found == said
