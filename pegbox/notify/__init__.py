"""Tell people and programs that a job has ended: drains the queue's outbox, and never harms a job."""
