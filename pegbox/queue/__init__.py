"""Durable work: jobs with a status, claimed under a lease, moved by one function. Knows no tuning: what a job
does is the handler's business."""
