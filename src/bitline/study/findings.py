"""What the numbers of a study say, in sentences that turn when the numbers do, or are silent."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from bitline.study import lesson_tiles, lesson_together, lesson_training

Study = Mapping[str, Any]


@dataclass(frozen=True)
class Finding:
    """One sentence.

    Args:
        lesson: 1, 2 or 3.
        text: what the numbers say.
    """

    lesson: int
    text: str


def findings(study: Study) -> list[Finding]:
    """Say what a study found.

    Args:
        study: content of its file, finished or not; lessons that were not measured are silent.
    """
    sentences = (
        (1, lesson_tiles.sentences(study)),
        (2, lesson_together.sentences(study)),
        (3, lesson_training.sentences(study)),
    )
    return [Finding(lesson, text) for lesson, texts in sentences for text in texts]
