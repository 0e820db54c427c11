"""`bitline.sweep`: every combination as an evaluation of that chip finds it, kept, and gone on with."""

import json
from typing import Any

import pytest
from two_inputs_samples import CHIP, calibration, held_out, regression

import bitline
from bitline.errors import DataError


def swept(**more: Any) -> bitline.Sweep:
    vary = {"adc.bits": [3, 6], "cell.programming.sigma": [0.0, 0.2]}
    return bitline.sweep(
        regression(), CHIP, vary, held_out(), calibration=calibration(), metric="rmse", chips=2, **more
    )


def test_a_sweep_measures_every_combination_as_an_evaluation_of_that_chip_does(tmp_path):
    result = swept()
    assert [v.overrides for v in result.variants] == [
        (f"adc.bits={bits}", f"cell.programming.sigma={sigma}") for bits in (3, 6) for sigma in (0.0, 0.2)
    ]
    for variant in (result.variants[0], result.variants[3]):
        chip = bitline.replace(CHIP, *variant.overrides)
        alone = bitline.evaluate(
            regression(), chip, held_out(), calibration=calibration(), metric="rmse", chips=2, cause_chips=1
        )
        assert variant.chips == pytest.approx(alone.accuracy.chips, rel=1e-9)
        assert variant.energy_J == pytest.approx(alone.cost.energy_J)
        assert variant.worst == max(variant.chips)
    pairs = [(v.energy_J, v.mean) for v in result.variants]
    best = [v for v in result.variants if not any(e <= v.energy_J and m < v.mean for e, m in pairs)]
    assert set(result.best) <= set(best)
    assert result.best[-1].mean == min(mean for _, mean in pairs)
    assert str(result).count("●") == len(result.best)
    assert all(len(line) <= 80 for line in str(result).splitlines())
    assert "RMSE against energy" in result.to_html(tmp_path / "sweep.html").read_text()
    assert result._repr_html_().count("<tr>") == 5


def test_a_sweep_keeps_its_points_and_goes_on_with_them(tmp_path):
    folder, seen = tmp_path / "out", list[str]()

    def stop(variant: Any) -> None:
        seen.append(variant.label)
        if len(seen) == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        swept(out=folder, done=stop)
    with pytest.raises(DataError, match=r"out is not empty; resume=True \(--resume\) goes on"):
        swept(out=folder)
    rest: list[str] = []
    result = swept(out=folder, resume=True, done=lambda v: rest.append(v.label))
    assert len(seen) == len(rest) == 2
    assert result == swept()
    with pytest.raises(DataError, match=r"holds another sweep: vary\.adc\.bits"):
        bitline.sweep(
            regression(), CHIP, {"adc.bits": [3]}, held_out(), calibration=calibration(), metric="rmse", chips=2,
            out=folder, resume=True,
        )  # fmt: skip
    with pytest.raises(DataError, match=r"holds no sweep.json to go on with"):
        swept(out=tmp_path / "other", resume=True)


@pytest.mark.parametrize(
    ("vary", "message"),
    [
        ({}, "nothing varies"),
        ({"adc.bits": []}, r"values of adc.bits are \[\]"),
        ({"adc.bits": "345"}, "values of adc.bits are '345'"),
        ({"adc.bits": [3, 3]}, r"values of adc.bits are \[3, 3\]"),
        ({"adc.bitts": [3]}, "did you mean 'bits'"),
        ({"adc.bits": [3, 99]}, "99"),
    ],
)
def test_what_is_no_sweep_is_refused_before_anything_is_measured(vary, message, monkeypatch):
    monkeypatch.setattr("bitline.evaluation.on_chip.calibrate", lambda *_, **__: pytest.fail("calibrated"))
    with pytest.raises(bitline.BitlineError, match=message):
        bitline.sweep(regression(), CHIP, vary, held_out(), metric="rmse")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda content: content.pop("metric"), "sweep.json is no sweep: metric is missing$"),
        (lambda content: content["data"].update(cuont=1), "unknown key data.cuont; did you mean 'count'?"),
        (lambda content: content.update(seeds=["x"]), "seeds.0 = 'x': input should be a valid integer"),
    ],
)
def test_a_damaged_file_of_points_is_refused_by_its_key(change, message, tmp_path):
    swept(out=tmp_path)
    content = json.loads((tmp_path / "sweep.json").read_text())
    change(content)
    (tmp_path / "sweep.json").write_text(json.dumps(content))
    with pytest.raises(DataError, match=message):
        swept(out=tmp_path, resume=True)
