import pytest
import torch
from reconstruct_samples import ROWS, batches, network, trained
from safetensors.torch import load_model, save_model
from torch import nn

from bitline.compress import fold_norms, regroup
from bitline.errors import ConversionError
from bitline.models.rewrite import apply
from bitline.nn import to_crossbar

DATA = batches(4)


def test_a_folded_network_answers_as_before_and_has_no_batch_norm(tmp_path):
    model = trained(network(), DATA)

    found = fold_norms(model, DATA[0])

    torch.testing.assert_close(found.model(DATA[1]), model(DATA[1]), rtol=1e-4, atol=1e-4)
    assert not any(isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d) for module in found.model.modules())
    assert found.report.folded == {"1": "0", "4": "3", "8": "7", "12": "11", "15": "14"}
    assert found.report.unchanged == ()
    assert "1: folded into 0" in str(found.report)
    assert isinstance(model[1], nn.BatchNorm2d)


@pytest.mark.parametrize("mix", [False, True])
def test_a_regrouped_and_folded_network_is_rebuilt_from_both_rewrites(mix, tmp_path):
    grouped = regroup(trained(network(), DATA), DATA, rows=ROWS, mix=mix, linear=True)
    folded = fold_norms(grouped.model, DATA[0])
    save_model(folded.model, str(tmp_path / "model.safetensors"))

    rebuilt = apply(network(), grouped.rewrites + folded.rewrites).eval()
    load_model(rebuilt, str(tmp_path / "model.safetensors"), strict=True)

    torch.testing.assert_close(folded.model(DATA[1]), grouped.model(DATA[1]), rtol=1e-4, atol=1e-4)
    assert torch.equal(rebuilt(DATA[1]), folded.model(DATA[1]))


def test_a_batch_norm_with_no_layer_of_its_own_stays_and_is_listed():
    model = trained(nn.Sequential(nn.BatchNorm2d(4), nn.Conv2d(4, 4, 3), nn.ReLU()), DATA)

    found = fold_norms(model, DATA[0])

    assert [(item.name, item.why) for item in found.report.unchanged] == [
        ("0", "no single layer before it to fold it into")
    ]
    assert found.rewrites == ()


def test_a_network_on_a_chip_is_refused(make_chip):
    model = to_crossbar(network(), make_chip(), example=DATA[0]).model

    with pytest.raises(ConversionError, match="layer 0 is on a chip already"):
        fold_norms(model, DATA[0])
