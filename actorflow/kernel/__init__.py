"""The pure heart: drives durable code by hand and decides what it may do next. No loop, no clock, no I/O."""
