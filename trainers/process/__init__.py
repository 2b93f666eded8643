"""What runs inside a training process of TRL: `python -m trainers.process JOB.json`."""

from typing import Any

Job = dict[str, Any]  # job.json, as trainers.training.job_of writes it
