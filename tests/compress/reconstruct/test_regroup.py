import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from reconstruct_samples import ROWS, batches, images, network, trained
from safetensors.torch import load_model, save_model
from torch import nn

from bitline.compress import Sampling, regroup
from bitline.errors import ConversionError
from bitline.models.blocks import GroupConv2d, GroupLinear, SeparableConv2d
from bitline.models.rewrite import apply
from bitline.nn import to_crossbar

DATA = batches(4)
DEEP = batches(8)


@pytest.fixture(scope="module")
def model() -> nn.Module:
    return trained(network(), DATA)


def hidden_groups(inputs: int, outputs: int, groups: int, **options) -> nn.Conv2d:
    """A dense convolution that is one of groups, its channels in an order that hides them."""
    conv = nn.Conv2d(inputs, outputs, 3, padding=1, **options)
    rng = torch.Generator().manual_seed(2)
    of = [torch.randperm(count, generator=rng) * groups // count for count in (outputs, inputs)]
    with torch.no_grad():
        conv.weight *= (of[0].unsqueeze(1) == of[1]).view(outputs, inputs, 1, 1)
    return conv


@pytest.mark.parametrize("refit", [False, True])
@pytest.mark.parametrize("mix", [False, True])
@pytest.mark.parametrize("bias", [False, True])
def test_groups_hidden_in_a_dense_network_are_recovered_exactly(bias, mix, refit):
    torch.manual_seed(0)
    model = trained(
        nn.Sequential(
            hidden_groups(8, 16, 2, bias=bias), nn.BatchNorm2d(16), nn.ReLU(), hidden_groups(16, 8, 4, bias=bias)
        ),
        DEEP,
    )

    found = regroup(model, DEEP, rows=ROWS, mix=mix, refit=refit)

    assert [type(found.model[i]) for i in (0, 3)] == [GroupConv2d, GroupConv2d]
    assert [layer.kept["best"] for layer in found.report.layers] == pytest.approx([1, 1])
    x = images(4, 8, seed=77)
    torch.testing.assert_close(found.model(x), model(x), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("assignment", ["best", "diagonal", "shuffle"])
@pytest.mark.parametrize("options", [{}, {"mix": True}, {"row_tiles": 2}, {"linear": True}, {"refit": False}])
def test_no_rewritten_layer_needs_more_row_tiles_than_allowed(model, make_chip, assignment, options):
    found = regroup(model, DATA, rows=ROWS, assignment=assignment, **options)

    chip = make_chip(crossbar={"rows": ROWS, "cols": 64})
    tiles = {
        layer.matmul.name: layer.row_tiles for layer in to_crossbar(found.model, chip, example=DATA[0]).report.layers
    }

    assert found.report.layers
    for layer in found.report.layers:
        inside = [count for name, count in tiles.items() if name.startswith(f"{layer.name}.")]
        assert inside
        assert max(inside) == layer.tiles_after <= options.get("row_tiles", 1) < layer.tiles_before
    rewritten = {layer.name for layer in found.report.layers}
    left = {name.split(".")[0] for name, count in tiles.items() if count > options.get("row_tiles", 1)} - rewritten
    assert left == {item.name for item in found.report.unchanged}


@pytest.mark.parametrize("options", [{}, {"mix": True}, {"linear": True}])
@pytest.mark.parametrize("with_example", [True, False])
def test_every_batch_norm_behind_a_rewritten_layer_folds_into_it(model, make_chip, options, with_example):
    found = regroup(model, DATA, rows=ROWS, **options)

    _, report = to_crossbar(found.model, make_chip(crossbar={"rows": ROWS}), example=DATA[0] if with_example else None)

    norms = {
        name for name, module in found.model.named_modules() if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d)
    }
    assert set(report.folded) == norms
    assert report.digital == ()
    last = "mix" if "mix" in options else "conv"
    assert {report.folded["4"], report.folded["8"]} == {f"3.{last}", f"7.{last}"}


@pytest.mark.parametrize("options", [{}, {"mix": True}, {"linear": True}, {"assignment": "shuffle"}])
def test_refitted_weights_are_never_further_from_the_dense_outputs(model, options):
    for layer in regroup(model, DATA, rows=ROWS, **options).report.layers:
        assert layer.error_after is not None
        assert layer.error_after <= layer.error_before * (1 + 1e-9)


@settings(max_examples=15)
@given(st.integers(0, 1000), st.booleans(), st.booleans(), st.booleans(), st.sampled_from([1, 7, 300]))
def test_refitting_never_increases_the_error_on_any_layer_and_sample(seed, bias, norm, mix, positions):
    torch.manual_seed(seed)
    layers = [nn.Conv2d(8, 8, 3, bias=bias), *([nn.BatchNorm2d(8)] if norm else []), nn.Tanh(), nn.Conv2d(8, 4, 3)]
    model = trained(nn.Sequential(*layers), DEEP)

    found = regroup(model, DEEP, rows=20, mix=mix, sampling=Sampling(positions=positions))

    for layer in found.report.layers:
        assert layer.error_after <= layer.error_before * (1 + 1e-9) + 1e-12


def test_refitting_brings_the_whole_network_closer_on_new_data(model):
    x = images(32, 4, seed=50)
    with torch.no_grad():
        off = {
            refit: float((regroup(model, DATA, rows=ROWS, refit=refit).model(x) - model(x)).square().mean())
            for refit in (False, True)
        }

    assert off[True] < 0.8 * off[False]


def test_the_error_in_the_report_is_that_of_the_layer_measured_outside(model):
    found = regroup(model, DATA, rows=ROWS, sampling=Sampling(positions=10**9))
    layer = found.report.layers[0]
    seen: dict[bool, torch.Tensor] = {}
    for rewritten, network_ in ((False, model), (True, found.model)):
        outputs: list[torch.Tensor] = []
        handle = network_.get_submodule(layer.name).register_forward_hook(lambda _m, _x, y, to=outputs: to.append(y))
        with torch.no_grad():
            for x in DATA:
                network_(x)
        handle.remove()
        seen[rewritten] = torch.cat(outputs).transpose(0, 1).flatten(1).double()
    norm = model[4]
    weigh = (norm.weight.detach() / (norm.running_var + norm.eps).sqrt()).double().square()
    lost = ((seen[True] - seen[False]).var(1, correction=0) * weigh).sum()

    assert layer.error_after == pytest.approx(float(lost / (seen[False].var(1, correction=0) * weigh).sum()), rel=1e-3)


def test_batch_norms_follow_so_that_their_inputs_have_the_statistics_they_expect(model):
    found = regroup(model, DATA, rows=ROWS, refit=False, linear=True, sampling=Sampling(positions=10**9)).model
    for name in ("4", "8", "12", "15"):
        values: dict[str, torch.Tensor] = {}
        for key, network_ in (("before", model), ("after", found)):
            inputs: list[torch.Tensor] = []
            handle = network_.get_submodule(name).register_forward_pre_hook(lambda _m, x, to=inputs: to.append(x[0]))
            with torch.no_grad():
                for x in DATA:
                    network_(x)
            handle.remove()
            values[key] = torch.cat(inputs).transpose(0, 1).flatten(1)
        before, after = model.get_submodule(name), found.get_submodule(name)
        moved = values["after"].mean(1) - values["before"].mean(1)
        torch.testing.assert_close(after.running_mean, before.running_mean + moved, rtol=2e-3, atol=2e-3)
        ratio = values["after"].var(1) / values["before"].var(1)
        torch.testing.assert_close(after.running_var, before.running_var * ratio, rtol=2e-2, atol=1e-4)


def test_batch_norms_stay_as_they_were_where_asked_and_in_front_of_the_first_change(model):
    for recalibrate in (True, False):
        found = regroup(model, DATA, rows=ROWS, recalibrate_norms=recalibrate).model
        assert torch.equal(found[1].running_mean, model[1].running_mean)
        assert torch.equal(found[1].running_var, model[1].running_var)
        assert torch.equal(found[4].running_var, model[4].running_var) != recalibrate
        assert found[4].num_batches_tracked == model[4].num_batches_tracked
        assert not any(module.training for module in found.modules())


def test_the_network_given_is_not_changed(model):
    before = {key: value.clone() for key, value in model.state_dict().items()}

    regroup(model, DATA, rows=ROWS, mix=True, linear=True)

    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())


def test_the_rewrites_rebuild_the_structure_that_the_weights_belong_to(model, tmp_path):
    found = regroup(model, DATA, rows=ROWS, mix=True, linear=True)
    save_model(found.model, str(tmp_path / "model.safetensors"))

    rebuilt = apply(network(), found.rewrites).eval()
    load_model(rebuilt, str(tmp_path / "model.safetensors"), strict=True)

    assert torch.equal(rebuilt(DATA[0]), found.model(DATA[0]))


def test_the_same_data_and_seed_give_the_same_network(model):
    one, again = (regroup(model, DATA, rows=ROWS, sampling=Sampling(positions=200, seed=3)).model for _ in range(2))

    assert all(torch.equal(a, b) for a, b in zip(one.state_dict().values(), again.state_dict().values(), strict=True))


def test_labels_beside_the_inputs_are_passed_over(model):
    one, other = (regroup(model, data, rows=ROWS).model for data in (DATA, [(x, x[:, 0, 0, 0]) for x in DATA]))

    assert all(torch.equal(a, b) for a, b in zip(one.state_dict().values(), other.state_dict().values(), strict=True))


def test_linear_layers_are_listed_unless_asked_for_and_the_last_one_always(model):
    assert {item.name: item.why for item in regroup(model, DATA, rows=12).report.unchanged} == {
        "11": "a linear layer; these are rewritten where asked for (linear=True, --split-linear)",
        "14": "a linear layer; these are rewritten where asked for (linear=True, --split-linear)",
        "17": "the last layer",
    }
    found = regroup(model, DATA, rows=12, linear=True)
    assert {item.name for item in found.report.unchanged} == {"17"}
    assert isinstance(found.model[14], GroupLinear)
    assert "17: left, the last layer" in str(found.report)


def test_a_layer_that_no_number_of_groups_divides_is_left_with_the_reason():
    model = nn.Sequential(nn.Conv2d(8, 9, 3), nn.ReLU(), nn.Conv2d(9, 6, 3))

    left = regroup(model, DEEP, rows=18).report.unchanged

    assert [(item.name, item.why) for item in left] == [
        ("0", "no number of groups divides its 8 inputs and 9 outputs and leaves at most 18 rows"),
        ("2", "no number of groups divides its 9 inputs and 6 outputs and leaves at most 18 rows"),
    ]


def test_layers_that_cannot_be_seen_or_are_to_stay_are_left_with_the_reason():
    class Own(nn.Conv2d):
        def forward(self, input: torch.Tensor) -> torch.Tensor:
            return super().forward(input).abs()

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.own, self.idle, self.keep = Own(8, 8, 3), nn.Conv2d(8, 8, 3), nn.Conv2d(8, 8, 3)
            self.tokens, self.last = nn.Linear(40, 40), nn.Linear(40, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y = self.keep(self.own(x)).flatten(2).mean(2, keepdim=True).expand(-1, -1, 40)
            return self.last(self.tokens(y).mean(1))

    left = {
        item.name: item.why for item in regroup(Net(), DEEP, rows=ROWS, linear=True, leave=["keep"]).report.unchanged
    }

    assert left == {
        "own": "Own has a forward or weights of its own",
        "idle": "never ran on the batches",
        "keep": "as asked",
        "tokens": "its input has 3 axes",
        "last": "the last layer",
    }


def test_a_layer_that_runs_twice_is_fitted_to_both_uses():
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(8, 8, 3, padding=1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.conv(self.conv(x).relu())

    found = regroup(Twice(), DEEP, rows=ROWS)

    assert isinstance(found.model.conv, GroupConv2d)
    assert found.report.layers[0].error_after < found.report.layers[0].error_before


@pytest.mark.parametrize(("first", "into"), [(True, "0.depthwise"), (False, "0.pointwise.conv")])
def test_the_pointwise_layer_of_a_separable_convolution_can_be_grouped_and_its_batch_norm_still_folds(
    make_chip, first, into
):
    block = SeparableConv2d(nn.Conv2d(8, 16, 3, bias=False), pointwise_first=first)
    model = trained(nn.Sequential(block, nn.BatchNorm2d(16)), DEEP)

    found = regroup(model, DEEP, rows=4)

    assert [layer.name for layer in found.report.layers] == ["0.pointwise"]
    for example in (DEEP[0], None):
        report = to_crossbar(found.model, make_chip(crossbar={"rows": 9}), example=example).report
        assert report.folded == {"1": into}


def test_a_group_convolution_is_left_as_it_is(model):
    once = regroup(model, DATA, rows=ROWS, mix=True)

    again = regroup(once.model, DATA, rows=12, mix=True)

    assert {(item.name, item.why) for item in again.report.unchanged} >= {("7.mix", "is part of a GroupConv2d")}
    assert [rewrite.module for rewrite in again.rewrites] == ["0"]


def test_outputs_that_never_vary_and_inputs_that_are_zero_do_no_harm():
    model = nn.Sequential(nn.Conv2d(8, 8, 3, bias=False), nn.BatchNorm2d(8), nn.Conv2d(8, 8, 3)).eval()
    with torch.no_grad():
        model[0].weight[3] = 0
        model[1].weight[5] = 0
    data = [x.clone() for x in DEEP]
    for x in data:
        x[:, :4] = 0

    found = regroup(model, data, rows=ROWS, mix=True)

    assert all(bool(value.isfinite().all()) for value in found.model.state_dict().values())


def test_a_layer_that_no_longer_runs_once_another_is_rewritten_is_an_error():
    class Fickle(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.Conv2d(8, 8, 3), nn.Conv2d(8, 8, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y = self.first(x)
            return self.second(y) if isinstance(self.first, nn.Conv2d) else y

    with pytest.raises(ConversionError, match="layer second ran 0 times on a batch, and 1 times before others"):
        regroup(Fickle(), DEEP, rows=ROWS)


def test_a_kernel_of_more_rows_than_a_crossbar_has_is_refused_by_name(model):
    with pytest.raises(
        ConversionError, match=r"layer 0: one channel of its 3 x 3 kernel takes 9 rows; allowed: 8 rows x 1"
    ):
        regroup(model, DATA, rows=8)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rows": 0}, "rows is 0; allowed: 1 or more"),
        ({"row_tiles": 0}, "row_tiles is 0; allowed: 1 or more"),
        ({"assignment": "shufle"}, "did you mean 'shuffle'"),
        ({"leave": ["nine"]}, "leave names 'nine', which is no layer; .*layers: 0, 3, 7, 11, 14, 17"),
        ({"batches": []}, "batches is empty"),
        ({"batches": DATA[0]}, "put a single tensor in a list"),
        ({"batches": [torch.zeros(2, 3, 8, 8)]}, "does not run on a batch of shape"),
        ({"batches": [DATA[0] * torch.nan]}, "layer 3 is given NaN"),
    ],
)
def test_nonsense_is_refused(model, options, message):
    options = {"batches": DATA, "rows": ROWS, **options}
    with pytest.raises(ConversionError, match=message):
        regroup(model, options.pop("batches"), **options)


def test_no_position_at_all_is_refused():
    with pytest.raises(ConversionError, match="positions is 0; allowed: 1 or more"):
        Sampling(positions=0)


def test_a_network_on_a_chip_is_refused(model, make_chip):
    with pytest.raises(ConversionError, match="layer 0 is on a chip already; rewrite the plain network"):
        regroup(to_crossbar(model, make_chip(), example=DATA[0]).model, DATA, rows=ROWS)


def test_the_report_says_what_became_of_every_layer(model):
    lines = str(regroup(model, DATA, rows=ROWS, mix=True).report).splitlines()

    assert lines[0].startswith("3: group, 2 groups, mixed in 1, 72 rows, row tiles 2 -> 1, kept best ")
    assert lines[-1] == "14: left, a linear layer; these are rewritten where asked for (linear=True, --split-linear)"
