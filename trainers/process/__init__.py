"""What runs inside a training process of TRL: `python -m trainers.process JOB.json`."""
