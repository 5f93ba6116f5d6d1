"""The folder of a study before it is opened: whether one may begin there, or be gone on with."""

from pathlib import Path

from search.history import JOURNAL_NAME, LOCK_NAME
from search.journal import Journal
from search.ledger import Ledger, LedgerError
from search.services_file import read_services
from search.study import StudySpec
from search.study_file import StudyError, check_not_another, read_study


def check_free(spec: StudySpec, folder: Path) -> None:
    """Refuses a folder with other files, among which those of a study would be lost.

    Raises:
        StudyError: naming them, or what another study that is recorded there has otherwise.
    """
    try:
        found = {path.name for path in folder.iterdir()}
    except OSError:
        return  # there is none, or the journal says what is wrong with it
    others = sorted(found - {LOCK_NAME})  # of a start that was killed at once
    if JOURNAL_NAME in found:
        if not never_begun(folder):
            check_not_another(spec, folder)
    elif others:
        shown = ", ".join(others[:3]) + (", ..." if len(others) > 3 else "")
        raise StudyError(
            f"{folder}: must be empty or not exist where a study begins, but holds {shown}; "
            "name another folder by --output"
        )


def default_output(spec: StudySpec, *, resume: bool = False) -> Path:
    """Returns `runs/<study>[-<size>]`, on the storage of this host's services if they have one.

    A study that was begun before there were services is gone on with where it is.

    Raises:
        ServicesError: The services' file cannot be understood.
        StudyError: There is one to go on with in both places.
    """
    here = Path("runs") / (spec.study + (f"-{spec.size}" if spec.size else ""))
    services = read_services()
    if services is None or services.storage is None:
        return here
    shared = Path(services.storage) / here
    if not resume or not (here / JOURNAL_NAME).exists():
        return shared
    if (shared / JOURNAL_NAME).exists():
        raise StudyError(
            f"--resume: there is a study in {here} and one in {shared}; say by --output which"
        )
    return here


def never_begun(folder: Path) -> bool:
    """Returns whether a start was cut short before anything was recorded."""
    journal = folder / JOURNAL_NAME
    return journal.exists() and journal.stat().st_size == 0


def out_of_order(folder: Path, error: LedgerError) -> StudyError:
    """Returns what is said of events that contradict each other."""
    return StudyError(
        f"{folder / JOURNAL_NAME}: must hold events in their order, as they were written, "
        f"but {error}; bring the unchanged file back"
    )


def look_into(spec: StudySpec, folder: Path, *, resume: bool) -> Ledger:
    """Refuses what a real start would refuse, and writes nothing; returns what is recorded.

    Raises:
        StudyError: A study would begin among other files or in another's folder, or what is
            recorded is broken.
        JournalError: A study is recorded where one would begin, or none where one would be gone
            on with; another process writes it; the folder cannot be written.
    """
    journal = folder / JOURNAL_NAME
    if resume:
        read_study(folder)  # says best what is missing
    else:
        check_free(spec, folder)
    Journal.check(journal, create=not resume)
    try:
        return Ledger(Journal.read(journal) if journal.exists() else ())
    except LedgerError as error:
        raise out_of_order(folder, error) from None
