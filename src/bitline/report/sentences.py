"""What an evaluation says in words, for the page and the terminal alike."""

import math

from bitline.evaluation.record import Data, Evaluation
from bitline.evaluation.spread import Spread
from bitline.report import text
from bitline.report.measure import Measure
from bitline.report.quantities import parts, quantities


def images(data: Data) -> str:
    """Name the images: ``cifar10 test, 500 images``."""
    if not data.split:
        return f"{data.name}, {text.number(data.count)} samples"
    return f"{data.name} {data.split}, {text.number(data.count)} images"


def lead(evaluation: Evaluation) -> list[str]:
    """Say the result in two sentences."""
    return [f"{_accuracy(evaluation)}.", f"{_cost(evaluation)}.", *ranges(evaluation), *simulation(evaluation)]


def ranges(evaluation: Evaluation) -> list[str]:
    """Say that ranges were set on what is evaluated, where they were."""
    same = evaluation.calibration is not None and "evaluated" in evaluation.calibration
    return [f"Ranges were set on {evaluation.calibration}: the chip has seen them before."] if same else []


def simulation(evaluation: Evaluation) -> list[str]:
    """Say that a surrogate answered, and where it does not hold; nothing where all conversions were simulated."""
    own = evaluation.simulation
    if own.kind == "exact":
        return []
    told = [f"Accuracies are those of a surrogate, measured on {text.number(own.images)} training images."]
    if own.holds:
        return told
    why: list[str] = []
    if own.noisy:
        some = ", ".join(list(own.noisy)[:3]) + (" ..." if len(own.noisy) > 3 else "")
        why.append(f"what conversions add is more than the product in {len(own.noisy)} layers ({some})")
    if own.changed:
        why.append(f"conversions move {100 * own.changed:.0f} % of images to another class")
    if own.unlike:
        why.append(
            f"the surrogate moves {'more' if own.unlike > 0 else 'fewer'} ({abs(own.unlike):.1f} standard errors)"
        )
    if own.overflows:
        why.append(f"{100 * own.overflows:.0f} % of images overflow")
    if not why:
        why.append("it is measured on too few images")
    return [*told, f"It does not hold here: {'; '.join(why)}. Use the exact simulation."]


def no_gain(before: Evaluation, after: Evaluation) -> list[str]:
    """Say that a recipe left a network no better on its chips than it was, beyond the standard error; else nothing.

    Args:
        before: of the network that the recipe began with.
        after: of the network that it left. On the same chips, the error is that of the differences chip by chip.
    """
    old, new, measure = before.accuracy, after.accuracy, Measure(after.metric)
    gain = after.metric.lost(new.on_chip, old.on_chip)
    if not (old.chips and new.chips):
        error = 0.0
    elif before.seeds == after.seeds:
        error = Spread.of([b - a for a, b in zip(old.chips, new.chips, strict=True)]).standard_error
    else:
        error = math.hypot(*(Spread.of(each.chips).standard_error for each in (old, new)))
    if gain > error:
        return []
    unit = f" {measure.points}".rstrip()
    what = f"{measure.number(gain, sign=True)}{unit}"
    if min(len(old.chips), len(new.chips)) > 1:  # one chip has no spread
        what += f", with a standard error of {measure.number(error)}{unit}"
    how = "worse than before" if gain < -error else "no better than before"
    return [f"On the chip the network is {how}: the gain in {after.metric.name} is {what}."]


def _accuracy(evaluation: Evaluation) -> str:
    accuracy, measure = evaluation.accuracy, Measure(evaluation.metric)
    sentence = f"The float network answers {text.decimal(accuracy.float)} % of the images right"
    if not evaluation.metric.is_accuracy:
        sentence = f"{measure.title} of the float network is {measure.figure(accuracy.float)}"
    if accuracy.chips:
        some = "one programmed chip" if len(accuracy.chips) == 1 else f"{len(accuracy.chips)} programmed chips"
        sentence += f", {some} {measure.spread(accuracy.mean, accuracy.std)}{measure.unit}"
    else:
        sentence += f", an ideal chip in integers {measure.figure(accuracy.ideal_integer)}"
    if not evaluation.metric.is_accuracy:
        sentence += f" ({evaluation.metric.better} is better)"
    worst = max(evaluation.causes, key=lambda loss: loss.points, default=None)
    if worst is not None and worst.points > 0:
        cause = f"{'the ' if worst.cause == 'adc' else ''}{text.cause(worst.cause)}"
        sentence += f". Most is lost to {cause}: {measure.number(worst.points)} {measure.points}".rstrip()
    return sentence


def _cost(evaluation: Evaluation) -> str:
    energy, latency, *_ = quantities(evaluation.cost)
    sentence = f"One inference costs {energy.text}" + (f" ({energy.span} across ADC models)" if energy.span else "")
    sentence += f" and {latency.text}"
    for name, share in list(parts(evaluation.cost)["energy"].shares.items())[:1]:
        sentence += f"; {text.label(name)} takes {100 * share:.0f} % of the energy"
    return sentence


def absent(evaluation: Evaluation) -> list[str]:
    """Name what this evaluation does not hold, so that a short page is not taken for a whole one."""
    missing: list[str] = []
    if not evaluation.accuracy.chips:
        missing.append("accuracy of programmed chips: no chip was programmed")
    analog = [layer for layer in evaluation.layers if layer.strategy != "digital"]
    without = [layer.name for layer in analog if layer.sums is None]
    if without:
        whole = len(without) == len(evaluation.layers)
        missing.append(f"partial sums of {'every layer' if whole else ', '.join(without)}")
    return missing
