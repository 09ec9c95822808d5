"""The report, drawn: for a terminal, a browser, a program, a code review. Facts in, text out."""
