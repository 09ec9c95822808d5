"""Tell people that a job has ended: drains the queue's outbox, and never harms a job."""
