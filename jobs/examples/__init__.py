"""Jobs that run as they are: `python -m jobs.examples.digits prepare` makes what `digits.yaml` asks for."""
