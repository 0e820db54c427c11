"""What the correction of mean errors costs, by hand."""

from bitline.chip import load, replace
from bitline.cost.events import assumed, count
from bitline.cost.model import price
from bitline.mapping.lower import Matmul
from bitline.mapping.place import place, placed

CHIP = load("crimp-32nm")
LAYER = Matmul("it", "linear", 300, 40, positions=5, inputs=1500)  # 3 row tiles of at most 128, 2 column tiles


def adders(correction: str) -> int:
    layer = placed(LAYER, replace(CHIP, f"weights.encoding.correction={correction}"))
    return count(layer, assumed(layer)).offset_adder_bits


def test_one_number_a_layer_takes_one_multiplication_a_vector():
    # sum(x) of 300 inputs of 8 bits has 17; the number has 8 bits, a sign and 4 of a fraction.
    assert adders("expected") - adders("none") == 5 * 17 * 13


def test_a_number_for_each_tile_and_column_takes_as_many_multiplications_and_additions():
    layer = placed(LAYER, CHIP)
    width = count(layer, assumed(layer)).output_register_bits // (5 * 3 * 40 * 8)
    assert adders("measured") - adders("none") == 5 * 3 * 40 * (15 * 13 + width)


def test_only_the_offset_sum_costs_more():
    plain, measured = (
        price(place([LAYER], replace(CHIP, f"weights.encoding.correction={kind}"))).energy_parts
        for kind in ("none", "measured")
    )
    assert {part for part in plain if plain[part] != measured[part]} == {"offset_sum"}
    assert measured["offset_sum"] > plain["offset_sum"]
