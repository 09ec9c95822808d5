"""The methods that jobs are tuned by, and the rows that each takes."""

from typing import BinaryIO

from pegbox.data.rows import first_format
from pegbox.errors import JobFailure

METHODS = ("supervised", "dpo")
_ROWS = {
    "supervised": "messages (or prompt and completion)",
    "dpo": "input, preferred_output and non_preferred_output",
}


def suits(content: BinaryIO, method: str, *, which: str, file_id: str) -> None:
    """Raises JobFailure, in the API's own words, for a file whose rows are of the other method's kind. Goes by the
    first row that can be read: what is wrong with single rows is told row by row."""
    first = first_format(content)
    if first is None or (first == "preference") == (method == "dpo"):
        return
    other = "dpo" if first == "preference" else "supervised"
    raise JobFailure(
        "invalid_training_file",
        f"The job failed due to an invalid {which} file. Invalid file format. Input file {file_id} is in the "
        f"fine-tune-{first} format, but the specified fine-tuning job is not using '{other}' as the training method "
        f"(provided method={method}). Create the job again with method '{other}', or with a file whose rows have "
        f"{_ROWS[method]}.",
        param=f"{which}_file",
    )
