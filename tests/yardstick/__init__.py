"""An outside yardstick: the conformance cases of another durable-execution system, told in actorflow and run.

A case is a YAML file: a handler in prose, its input, what the outside world does meanwhile (callbacks), the result, and the
history that must come of it. As for every system that is measured with them, the handlers are written by hand (`programs`);
everything else is read from the file. `python -m tests.yardstick` fetches the cases, runs them and prints the score.
"""
