"""Lesson 3 in words: whether training that does not see the tiling removes its errors."""

from collections.abc import Mapping
from typing import Any

from bitline.study.fit import differ
from bitline.study.subject import reached


def sentences(study: Mapping[str, Any]) -> list[str]:
    """Say what each way to train leaves of the loss."""
    points = {str(point["training"]): point for point in study.get("training") or []}
    images = int(study["data"]["count"])
    plain = points.get("unaware")
    if plain is None:
        return []
    sentences = [_loss(plain, images)]
    blind, seeing = points.get("quantization-aware"), points.get("partial-sum-aware")
    if blind is not None:
        sentences.append(_blind(plain, blind, images))
    if seeing is not None:
        sentences.append(_seeing(plain, blind, seeing, images))
    return sentences


def _loss(point: Mapping[str, Any], images: int) -> str:
    exact, adc, chips = point["ideal_integer"], point["adc"], reached(point)
    if not differ(exact, chips, images) and not differ(exact, adc, images):
        return (
            f"The network loses nothing on this chip that {images} images can tell: {exact:.2f} % in exact integers, "
            f"{chips:.2f} % on the chip."
        )
    programmed = f" and {chips:.2f} % on programmed chips" if "mean" in point else ""
    return (
        f"Trained without the chip, the network goes from {exact:.2f} % in exact integers to {adc:.2f} % with the ADCs "
        f"alone{programmed}."
    )


def _blind(plain: Mapping[str, Any], blind: Mapping[str, Any], images: int) -> str:
    """Compare training that knows the integers with training that knows nothing."""
    before, after = _lost(plain), _lost(blind)
    numbers = f"{after:.2f} points are lost on the chip, {before:.2f} without it"
    if not differ(reached(blind) - blind["ideal_integer"] + 100, reached(plain) - plain["ideal_integer"] + 100, images):
        return f"Quantization-aware training changes the loss by nothing that {images} images can tell: {numbers}."
    if after > before:
        return f"Quantization-aware training makes the network more sensitive to the chip: {numbers}."
    left = differ(reached(blind), blind["ideal_integer"], images)
    return f"Quantization-aware training removes {'part' if left else 'all'} of the loss: {numbers}."


def _seeing(plain: Mapping[str, Any], blind: Mapping[str, Any] | None, seeing: Mapping[str, Any], images: int) -> str:
    """Compare training that knows partial sums with the best of the others."""
    others = {"training without the chip": plain} | ({"quantization-aware training": blind} if blind else {})
    name, other = max(others.items(), key=lambda item: reached(item[1]))
    mine, theirs = reached(seeing), reached(other)
    numbers = f"{mine:.2f} % on the chip, {theirs:.2f} % with {name}"
    if not differ(mine, theirs, images):
        return f"Partial-sum-aware training gains nothing that {images} images can tell: {numbers}."
    if mine < theirs:
        return f"Partial-sum-aware training is worse: {numbers}."
    return f"Partial-sum-aware training gains {mine - theirs:.2f} points: {numbers}."


def _lost(point: Mapping[str, Any]) -> float:
    return float(point["ideal_integer"]) - reached(point)
