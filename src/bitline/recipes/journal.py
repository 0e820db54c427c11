"""The journal of a search: what was tried, so that a search that was killed goes on as if it had not been."""

from collections.abc import Sequence
from pathlib import Path

import optuna
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState, create_trial

from bitline.files import new_file

NAME = "auto"


class _NoLock(JournalFileOpenLock):
    """The run directory is locked already; a lock of the journal's own would outlive a process that is killed."""

    def acquire(self) -> bool:
        """Do nothing."""
        return True

    def release(self) -> None:
        """Do nothing."""


def open_journal(path: Path, directions: Sequence[StudyDirection]) -> optuna.Study:
    """Open the journal of a search, or begin one.

    A trial in which the process was killed has not happened: it waits again if it was asked for, and is drawn again
    with the same seed if it was not.

    Args:
        path: of the journal.
        directions: of the objectives.
    """
    if path.is_file():
        _cut(path)
    study = _study(path, directions)
    trials = study.get_trials()
    if any(trial.state == TrialState.RUNNING for trial in trials):
        with new_file(path) as part:
            rewound = _study(part, directions)
            for key, value in study.user_attrs.items():
                rewound.set_user_attr(key, value)
            rewound.add_trials([again for trial in trials if (again := _again(trial)) is not None])
        study = _study(path, directions)
    return study


def _again(trial: FrozenTrial) -> FrozenTrial | None:
    """A trial as it was before it ran; None where it was not there yet."""
    if trial.state != TrialState.RUNNING:
        return trial
    asked = trial.system_attrs.get("fixed_params")
    return create_trial(state=TrialState.WAITING, system_attrs={"fixed_params": asked}) if asked else None


def _study(path: Path, directions: Sequence[StudyDirection]) -> optuna.Study:
    storage = JournalStorage(JournalFileBackend(str(path), _NoLock(str(path))))
    return optuna.create_study(storage=storage, study_name=NAME, load_if_exists=True, directions=directions)


def _cut(path: Path) -> None:
    """Take away a last line that was not completed, and the locks of earlier versions."""
    content = path.read_bytes()
    whole = content[: content.rfind(b"\n") + 1]
    if whole != content:
        with new_file(path) as part:
            part.write_bytes(whole)
    for lock in path.parent.glob(f"{path.name}.lock*"):
        lock.unlink(missing_ok=True)
