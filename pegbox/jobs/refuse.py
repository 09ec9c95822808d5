"""What can't be trained on: a failed job that names every bad example."""

from pegbox.data.check import Looked
from pegbox.data.survey import Survey
from pegbox.errors import JobFailure
from pegbox.settings import Settings


def refuse(looked: Looked, settings: Settings) -> None:
    """Raises JobFailure if any row is bad, or if there are too few."""
    training, validation = looked.training, looked.validation
    for survey in (training, validation):
        if survey is not None and survey.bad:
            raise _bad_rows(survey)
    if validation is not None:
        if not validation.used:
            raise JobFailure("invalid_n_examples", "Validation file has 0 example(s)", param="validation_file")
        _same_format(training, validation)
    if training.rows < settings.min_examples:
        text = f"Training file has {training.rows} example(s), but must have at least {settings.min_examples} examples"
        raise JobFailure("invalid_n_examples", text, param="training_file")
    if not training.used:
        text = "Every example is longer than the model can see, with all that is to be learnt cut off; shorten them"
        raise JobFailure("invalid_training_file", text, param="training_file")


def _bad_rows(survey: Survey) -> JobFailure:
    """The failure that names them: all of the first hundred, and how many there are."""
    which = survey.corpus.which
    code = "invalid_file_format" if survey.problems[0].is_format else "invalid_training_file"
    if code == "invalid_file_format":
        head = f"The job failed due to a file format error in the {which} file."
    else:
        head = f"The job failed due to an invalid {which} file."
    lines = [str(problem) for problem in survey.problems]
    more = survey.bad - len(lines)
    if more:
        lines.append(f"and {more} more")
    if survey.bad > 1:
        head += f" {survey.bad} of {survey.rows} examples are bad."
    return JobFailure(code, f"{head} Invalid file format. " + "\n".join(lines), param=f"{which}_file")


def _same_format(training: Survey, validation: Survey) -> None:
    if training.formats and validation.formats != training.formats:
        theirs, ours = next(iter(validation.formats)), next(iter(training.formats))
        text = f"The validation file is in {theirs} format, but the training file is in {ours} format."
        raise JobFailure("invalid_file_format", text, param="validation_file")
